# SPDX-License-Identifier: Apache-2.0
"""What `emptcp connections` prints as done: the rate at which sockets are paced."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from emptcp.api import Action, FlowEntry
from emptcp_actor_rate_limit.hooks import emptcp_actions

ENDS = ((ip_address("10.0.0.1"), 1), (ip_address("10.0.0.2"), 2))


def paced(wanted: tuple[int, int], set_to: tuple[int, int]) -> FlowEntry:
    state = struct.pack("=2I2I", *wanted, *set_to).ljust(80, b"\0")
    return FlowEntry(ENDS, 1, {"rate_limit": state})


def test_only_what_was_set_is_told() -> None:
    entries = [paced((0, 0), (0, 1_000_000)), paced((5000, 0), (0, 0)), FlowEntry(ENDS, 1)]
    assert emptcp_actions(entries=entries) == [[Action("rate_limit", "paced at 8mbit", 1)], [], []]
