# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emptcp.api import Endpoint, Subflow
from emptcp_actor_set_backup.told import Told, read, sender, value, write

bits = st.integers(0, 2)
pairs = st.tuples(bits, bits)
times = st.integers(0, 2**64 - 1)
places = st.integers(0, 2**32 - 1)

SUBFLOW = Subflow(
    local=IPv4Address("10.0.0.2"),
    local_port=40000,
    remote=IPv4Address("10.0.0.10"),
    remote_port=5001,
    state=1,
    token=0,
    local_id=0,
    remote_id=0,
    backup=False,
    request_backup=False,
    timestamps=False,
    snd_una=0,
    snd_nxt=0,
    send_window=0,
    write_seq=0,
    rcv_nxt=0,
    acknowledged=0,
    receive_window=0,
    rtt_us=0,
    bound_device=0,
    device=0,
    send_scale=0,
    receive_scale=0,
)


class Table:
    """A flow table of one entry."""

    def __init__(self) -> None:
        self.slot: bytes | None = None

    def get(self, one: Endpoint, other: Endpoint) -> bytes | None:
        return self.slot

    def put(self, one: Endpoint, other: Endpoint, state: bytes) -> None:
        self.slot = state


@given(told=pairs, own=pairs, at=times, held=st.tuples(times, times), following=st.tuples(places, places))
def test_what_is_written_is_read_again(
    told: tuple[int, int],
    own: tuple[int, int],
    at: int,
    held: tuple[int, int],
    following: tuple[int, int],
) -> None:
    table, known = Table(), Told(at, held, following, told, own)
    write(table, SUBFLOW, known)
    assert read(table, SUBFLOW) == known


def test_a_subflow_without_entry_is_unknown() -> None:
    assert read(Table(), SUBFLOW) == Told()


@given(told=pairs, own=pairs, end=st.integers(0, 1), new=bits)
def test_a_change_of_one_end_leaves_the_other(
    told: tuple[int, int], own: tuple[int, int], end: int, new: int
) -> None:
    changed = Told(told=told, own=own).put(end, told=new)
    assert changed.told[end] == new
    assert changed.told[1 - end] == told[1 - end]
    assert changed.own == own


@given(end=st.integers(0, 1), until=times, known=st.builds(Told, following=st.tuples(places, places)))
def test_holding_one_end_forgets_what_passed_there(end: int, until: int, known: Told) -> None:
    held = known.hold(end, until)
    assert (held.held_until[end], held.following[end]) == (until, 0)
    assert (held.held_until[1 - end], held.following[1 - end]) == (0, known.following[1 - end])


def test_what_emptcp_said_counts_before_what_the_end_asked_for() -> None:
    known = Told(own=(value(True), value(False)), told=(value(False), 0))
    assert [known.said(end) for end in (0, 1)] == [value(False), value(False)]


@pytest.mark.parametrize(
    ("local", "remote", "theirs"),
    [
        (("10.0.0.2", 40000), ("10.0.0.10", 5001), 1),
        (("10.0.0.10", 5001), ("10.0.0.2", 40000), 0),
        (("10.0.0.2", 256), ("10.0.0.2", 255), 0),
        (("10.0.0.2", 255), ("10.0.0.2", 256), 1),
        (("fd00::2", 1), ("fd00::10", 1), 1),
        (("fe80::1", 1), ("fd00::10", 1), 0),
    ],
)
def test_the_sender_is_told_by_the_order_on_the_wire(
    local: tuple[str, int], remote: tuple[str, int], theirs: int
) -> None:
    make = IPv6Address if ":" in local[0] else IPv4Address
    subflow = replace(
        SUBFLOW,
        local=make(local[0]),
        local_port=local[1],
        remote=make(remote[0]),
        remote_port=remote[1],
    )
    assert (sender(subflow, "us"), sender(subflow, "peer")) == (theirs, 1 - theirs)
