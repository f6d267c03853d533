# SPDX-License-Identifier: Apache-2.0
"""Counter slots: kept by those who had them, shared by none, one chunk per policy."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from emptcp.chain import counters
from emptcp.chain.counters import CHUNK_STAGES, COUNTER_BYTES


@given(st.lists(st.integers(1, 60), max_size=12), st.data())
def test_slots_are_distinct_and_a_policy_stays_within_one_chunk(
    sizes: list[int], data: st.DataObject
) -> None:
    policies = [[f"p{n}/s{m}" for m in range(size)] for n, size in enumerate(sizes)]
    known: dict[str, int] = {}
    following = 1
    for _ in range(3):
        keep = [policy for policy in policies if data.draw(st.booleans())]
        given_now = counters.allocate(keep, known, following)
        assert len(set(given_now.values())) == len(given_now)
        assert 0 not in given_now.values()
        assert set(given_now) == {name for policy in keep for name in policy}
        for policy in keep:
            assert len({given_now[name] // CHUNK_STAGES for name in policy}) == 1
        for name, slot in given_now.items():
            assert slot == known.get(name) or slot >= following
        following = max([following, *(slot + 1 for slot in given_now.values())])
        known = given_now


def test_a_stage_that_stays_keeps_its_slot_when_another_is_inserted_before_it() -> None:
    before = counters.allocate([["p/a", "p/b"]], {})
    after = counters.allocate([["p/new", "p/a", "p/b"]], before, 3)
    assert {name: after[name] for name in before} == before
    assert after["p/new"] not in before.values()


def test_a_block_sums_over_cpus_and_names_the_reasons() -> None:
    row = [5, 600, 4, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    chunk = bytearray(counters.CHUNK_BYTES)
    struct.pack_into(f"<{len(row)}Q", chunk, 3 * COUNTER_BYTES, *row)
    got = counters.block([bytes(chunk), bytes(chunk)], 3)
    assert (got.packets, got.bytes, got.matches, got.returns, got.skipped) == (10, 1200, 8, 2, 4)
    assert got.reasons == {"no_space": 4}
    assert (got - counters.block([bytes(chunk)], 3)).reasons == {"no_space": 2}


@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.dictionaries(st.integers(0, 2 * CHUNK_STAGES), st.integers(0, 2 * CHUNK_STAGES), max_size=5),
)
def test_carried_blocks_are_read_where_they_went_and_nothing_else_is(
    chunks: int, others: int, slots: dict[int, int]
) -> None:
    last, other_last = chunks * CHUNK_STAGES, others * CHUNK_STAGES
    slots = {slot: to for slot, to in slots.items() if slot < last and to < other_last}
    came_from = {to: slot for slot, to in slots.items()}
    slots = {slot: to for to, slot in came_from.items()}
    row = b"".join(struct.pack("<Q", 1 + number).ljust(COUNTER_BYTES, b"\0") for number in range(last))
    made = counters.carry(row, other_last * COUNTER_BYTES, slots)
    assert len(made) == other_last * COUNTER_BYTES
    for to in range(other_last):
        expected = counters.block([row], came_from[to]) if to in came_from else counters.Counters()
        assert counters.block([made], to) == expected


@given(st.integers(0, 400), st.integers(1, 512))
def test_rows_have_room_and_are_together_what_every_kernel_takes(last: int, cpus: int) -> None:
    row = counters.row_bytes([0, last], cpus)
    assert counters.has_room(row, [last])
    assert row % 64 == 0
    needed = (last // counters.STEP_STAGES + 1) * counters.STEP_STAGES * COUNTER_BYTES
    assert row * cpus <= counters.MOST_BYTES or row == needed


def test_few_cpus_have_room_for_a_whole_chunk() -> None:
    assert counters.row_bytes([2], 8) == counters.CHUNK_BYTES
    assert not counters.has_room(counters.CHUNK_BYTES, [CHUNK_STAGES])
