# SPDX-License-Identifier: Apache-2.0
"""The subtypes of MPTCP options, apart from the options: manifests name them, and take no codec to read."""

from __future__ import annotations

from enum import IntEnum


class Subtype(IntEnum):
    """Upper four bits of the option's third byte (RFC 8684 §7.2)."""

    MP_CAPABLE = 0
    MP_JOIN = 1
    DSS = 2
    ADD_ADDR = 3
    REMOVE_ADDR = 4
    MP_PRIO = 5
    MP_FAIL = 6
    MP_FASTCLOSE = 7
    MP_TCPRST = 8
