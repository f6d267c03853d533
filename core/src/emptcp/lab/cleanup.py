# SPDX-License-Identifier: Apache-2.0
"""Removes labs by their records: processes by pid and start time, then namespaces, then the record."""

from __future__ import annotations

import os

from emptcp.lab import namespace, process, state


def remove(record: state.Record) -> None:
    """Remove what a record names. Parts that are gone already are passed over, so it can be repeated.

    Processes that run inside the lab's namespaces go too: only the lab and who played in it put them there.
    """
    inside = [one for name in record.namespaces for one in namespace.processes(name)]
    process.kill([one for one in (*record.processes, *inside) if one.pid != os.getpid()])
    for name in record.namespaces:
        namespace.remove(name)
    state.forget(record)


def sweep() -> list[state.Record]:
    """Remove every lab whose process died without doing so; return what was removed."""
    stale = [record for record in state.records() if record.stale]
    for record in stale:
        remove(record)
    return stale
