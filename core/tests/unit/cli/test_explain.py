# SPDX-License-Identifier: Apache-2.0
"""Which subflow an operator means."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from emptcp.cli.explain import choose
from emptcp.control.seen import Seen
from emptcp.errors import EmptcpError
from emptcp.plugins.occasions import FlowEntry


def seen(token: int, local: str, remote: str, port: int) -> Seen:
    ends = (ip_address(local), port), (ip_address(remote), 80)
    return Seen(ends, entry=FlowEntry(ends, 1, tokens=(token, 0)))


FIRST = seen(0x1A2B3C4D, "10.0.0.1", "10.0.0.2", 4000)
SECOND = seen(0x1A2B3C4D, "10.0.1.1", "10.0.0.2", 4001)
OTHER = seen(0x1AFFFFFF, "fd00::1", "fd00::2", 4002)
UNKNOWN = seen(0, "10.9.9.9", "10.0.0.2", 4003)
ALL = [FIRST, SECOND, OTHER, UNKNOWN]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("10.0.0.1:4000-10.0.0.2:80", [FIRST]),
        ("10.0.0.2:80-10.0.0.1:4000", [FIRST]),
        ("10.0.0.1:4000 > 10.0.0.2:80", [FIRST]),
        ("10.0.1.", [SECOND]),
        ("[fd00::1]:4002-[fd00::2]:80", [OTHER]),
        ("0x1A2B3C4D", [FIRST, SECOND]),
        ("1aff", [OTHER]),
        ("10.9", [UNKNOWN]),
    ],
)
def test_ends_in_either_order_tokens_and_beginnings(text: str, meant: list[Seen]) -> None:
    assert choose(text, ALL) == meant


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10.0.", "is the beginning of several subflows"),
        ("1a", "One of: 1a2b3c4d, 1affffff."),
        ("", "there is no subflow or token ''"),
        ("10.0.0.1:4000-10.0.0.2:81", "Did you mean '10.0.0.1:4000-10.0.0.2:80'?"),
        ("nothing", "See: emptcp connections"),
    ],
)
def test_what_means_none_or_several_is_refused(text: str, said: str) -> None:
    with pytest.raises(EmptcpError) as refused:
        choose(text, ALL)
    assert said in str(refused.value)
