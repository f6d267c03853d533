# SPDX-License-Identifier: Apache-2.0
"""What `emptcp connections` prints as done: the bit that was said last in each end's name."""

from __future__ import annotations

from ipaddress import ip_address

from emptcp.api import Action, FlowEntry
from emptcp_actor_set_backup.hooks import emptcp_actions
from emptcp_actor_set_backup.told import Told, value

ENDS = ((ip_address("10.0.0.1"), 1), (ip_address("10.0.0.2"), 2))


def told(*said: bool | None) -> FlowEntry:
    first, second = (0 if one is None else value(one) for one in said)
    return FlowEntry(ENDS, 1, {"set_backup": Told(told=(first, second)).encode()})


def test_what_one_end_says_steers_the_other() -> None:
    entries = [told(True, None), told(None, False), told(None, None), FlowEntry(ENDS, 1)]
    assert emptcp_actions(entries=entries) == [
        [Action("set_backup", "backup", 1, True)],
        [Action("set_backup", "not backup", 0, False)],
        [],
        [],
    ]
