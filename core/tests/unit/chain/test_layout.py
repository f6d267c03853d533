# SPDX-License-Identifier: Apache-2.0
"""Parameters keep their places, and a change is whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from emptcp.chain import layout


@given(st.lists(st.integers(0, 256), max_size=20), st.integers(0, 9))
def test_slots_never_overlap_and_start_behind_the_switches(sizes: list[int], policies: int) -> None:
    placed, total = layout.slots(sizes, policies)
    switches = [layout.switch(number) for number in range(policies + 1)]
    assert switches == [layout.HEAD_SIZE + 8 * number for number in range(policies + 1)]
    end = switches[-1]
    for slot, size in zip(placed, sizes, strict=True):
        assert (slot is None) == (size == 0)
        if slot is not None:
            assert slot.offset == end
            assert slot.first_side % 8 == 0
            assert slot.end >= slot.first_side + size * (2 if size > 8 else 1)
            end = slot.end
    assert total == end


@given(st.lists(st.binary(min_size=1, max_size=64), min_size=1, max_size=6), st.data())
def test_what_was_changed_is_read_back_and_neighbours_stay(structs: list[bytes], data: st.DataObject) -> None:
    placed, total = layout.slots((len(packed) for packed in structs), 1)
    value = bytearray(total)
    for slot, packed in zip(placed, structs, strict=True):
        assert slot is not None
        layout.fill(value, slot, packed)
    words = memoryview(value).cast("Q")
    expected = list(structs)
    for _ in range(5):
        n = data.draw(st.integers(0, len(structs) - 1))
        expected[n] = data.draw(st.binary(min_size=len(structs[n]), max_size=len(structs[n])))
        layout.change(words, placed[n], expected[n])  # type: ignore[arg-type]
        assert [layout.read(value, slot) for slot in placed if slot] == expected


def test_a_large_struct_is_written_to_the_side_that_is_not_in_force() -> None:
    (slot,), total = layout.slots([24], 1)
    assert slot is not None
    value = bytearray(total)
    layout.fill(value, slot, b"a" * 24)
    layout.change(memoryview(value).cast("Q"), slot, b"b" * 24)
    assert value[slot.first_side : slot.first_side + 24] == b"a" * 24
    assert value[slot.offset] == slot.stride
