# SPDX-License-Identifier: Apache-2.0
"""Which subflows are of one connection, by the tokens of its ends."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from emptcp.chain.flows import Head, connections
from emptcp.mptcp import keys
from emptcp.plugins.occasions import Endpoint, FlowEntry

OURS, THEIRS = 0xA, 0xB


def entry(port: int, *tokens: int) -> FlowEntry:
    ends: tuple[Endpoint, Endpoint] = (IPv4Address("10.0.0.1"), port), (IPv4Address("10.0.0.2"), 80)
    return FlowEntry(ends, since=0, tokens=(tokens[0], tokens[1]))


def test_subflows_with_a_token_in_common_are_of_one_connection() -> None:
    both, one, other, turned = (
        entry(1, OURS, THEIRS),
        entry(2, OURS, 0),
        entry(3, 0xC, 0xD),
        entry(4, THEIRS, OURS),
    )
    (first, second) = connections([both, one, other, turned])
    assert (first.tokens, first.subflows) == ((OURS, THEIRS), (both, one, turned))
    assert (second.tokens, second.subflows) == ((0xC, 0xD), (other,))


def test_a_subflow_of_which_no_token_is_known_is_of_no_connection() -> None:
    assert connections([entry(1, 0, 0), entry(2, 0, 0)]) == []


def test_subflows_that_tell_one_token_each_are_of_one_connection_by_a_third_that_tells_both() -> None:
    first, second, both = entry(1, OURS, 0), entry(2, 0, THEIRS), entry(3, OURS, THEIRS)
    (found,) = connections([first, second, both])
    assert found.subflows == (first, second, both)


@pytest.mark.parametrize("version", [0, 1])
def test_keys_and_joins_tell_the_tokens_that_nobody_told(version: int) -> None:
    mine, yours = b"k" * 8, b"K" * 8
    tokens = keys.token(mine, version), keys.token(yours, version)
    assert Head(version, (mine, yours), (0, 0), inconsistent=False).known_tokens() == tokens
    assert Head(version, (mine, yours), (0, 0), inconsistent=True).known_tokens() == (0, 0)
    assert Head(version, (mine, None), (0, 0), inconsistent=False).known_tokens() == (0, 0)
    joined = Head(None, (None, None), (0, 0), inconsistent=False, joined=(tokens[1], 0))
    assert joined.known_tokens() == (0, tokens[1])
    told = Head(version, (mine, yours), (OURS, THEIRS), inconsistent=False)
    assert told.known_tokens() == (OURS, THEIRS)


def test_the_head_of_an_entry_is_read_as_programs_write_it() -> None:
    entry = bytes(8) + bytes((1, 2, 1, 0)) + bytes(4) + bytes(4) + b"\0\0\0\x07" + b"k" * 8 + bytes(8 + 8)
    assert Head.of(entry) == Head(1, (b"k" * 8, None), (0, 0), inconsistent=False, joined=(0, 7))


def test_our_end_comes_first() -> None:
    (found,) = connections([entry(1, THEIRS, OURS)], {OURS})
    assert found.tokens == (OURS, THEIRS)


def test_both_tokens_are_told_as_soon_as_one_subflow_has_them() -> None:
    (found,) = connections([entry(1, 0, THEIRS), entry(2, OURS, THEIRS)])
    assert found.tokens == (OURS, THEIRS)


@pytest.mark.parametrize(
    ("tokens", "end"),
    [
        ((OURS, THEIRS), 0),
        ((THEIRS, OURS), 1),
        ((OURS, 0), 0),
        ((0, OURS), 1),
        ((0, THEIRS), 0),
        ((THEIRS, 0), 1),
    ],
)
def test_either_end_of_a_subflow_may_be_the_connections_first(tokens: tuple[int, int], end: int) -> None:
    one = entry(2, *tokens)
    (found,) = connections([entry(1, OURS, THEIRS), one])
    assert found.end(one) == end
