# SPDX-License-Identifier: Apache-2.0
"""What the parameters' values mean, and which end of a subflow is ours."""

from __future__ import annotations

from emptcp.api import Subflow

AUTO, PACING, POLICE, MARK, WINDOW = range(5)
SUBFLOW, POLICY, DEV, CONNECTION = range(4)


def way_of(mode: int, per: int) -> int:
    """Return the mode that a stage has; AUTO where each packet tells: it then paces or polices."""
    return WINDOW if mode == AUTO and per == CONNECTION else mode


def our_end(subflow: Subflow) -> int:
    """Return the place of the local end in the flow's key, which is ordered by bytes on the wire."""
    local = (subflow.local.packed, subflow.local_port)
    return int(local > (subflow.remote.packed, subflow.remote_port))
