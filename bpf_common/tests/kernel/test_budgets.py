# SPDX-License-Identifier: Apache-2.0
"""What the headers cost the verifier and the stack, and what they must not make the kernel add."""

from __future__ import annotations

from pathlib import Path

import pytest

from emptcp.chain.instructions import decode, stack_depth
from emptcp.pybpf import LoadedObject, Program, capture, descriptor, library, load_object

pytestmark = pytest.mark.kernel

PARSER = 20_000
"""Instructions that the verifier may visit for the parser, all kinds of packet and option included."""

CHANGES = 60_000
"""The same for a program that has every changing function in it, parser included."""

STACK = 256
"""Bytes of stack for a fragment with the functions it calls."""


def executed(program: Program) -> bytes:
    """Return a program's instructions as the kernel runs them, after all its rewrites."""
    opened = library()
    info = descriptor.information(program.fd, "bpf_prog_info", "program")
    size = info.xlated_prog_len
    room = opened.ffi.new("char[]", size)
    again = opened.ffi.new("struct bpf_prog_info *")
    again.xlated_prog_len = size
    again.xlated_prog_insns = int(opened.ffi.cast("uintptr_t", room))
    descriptor.fill_information(program.fd, again, "program")
    return bytes(opened.ffi.buffer(room, size))


def has_unclone_prologue(program: Program) -> bool:
    """Tell whether the kernel put bpf_unclone_prologue() (net/core/filter.c) before the program.

    It begins with ``r6 = *(u8 *)(r1 + cloned); w6 &= 1; if r6 == 0 goto``.
    """
    first, second, third = (executed(program)[at : at + 2] for at in (0, 8, 16))
    return (first, second, third) == (b"\x71\x16", b"\x54\x06", b"\x15\x06")


@pytest.mark.parametrize("name", ["only_xdp", "only_tc"])
def test_the_parser_stays_within_its_verifier_budget(parse_object: LoadedObject, name: str) -> None:
    assert 1000 < parse_object.programs[name].info.verified_instructions <= PARSER


@pytest.mark.parametrize("name", ["change_xdp", "change_tc"])
def test_all_changes_together_stay_within_theirs(change_object: LoadedObject, name: str) -> None:
    assert 1000 < change_object.programs[name].info.verified_instructions <= CHANGES


@pytest.mark.parametrize("name", ["change_tc", "change_tagged_tc"])
def test_no_change_at_tc_writes_through_a_pointer(change_object: LoadedObject, name: str) -> None:
    assert not has_unclone_prologue(change_object.programs[name])


def test_a_write_through_a_pointer_would_be_seen(objects: dict[str, Path]) -> None:
    with load_object(objects["budget"]) as loaded:
        assert has_unclone_prologue(loaded.programs["written_tc"])
        assert not has_unclone_prologue(loaded.programs["unwritten_tc"])


def test_the_parser_at_tc_has_no_prologue(parse_object: LoadedObject) -> None:
    assert not has_unclone_prologue(parse_object.programs["parse_tc"])


def test_fragments_use_little_stack(objects: dict[str, Path]) -> None:
    used = {}
    with capture(objects["budget"]) as captured:
        for section, fragment in captured.fragments.items():
            code = list(decode(fragment.instructions))
            starts = [start for start, _ in fragment.functions]
            ends = [*starts[1:], len(code)]
            depths = [stack_depth(code[a:b]) for a, b in zip(starts, ends, strict=True)]
            # As if every function called the deepest one.
            used[section] = depths[0] + max(depths[1:], default=0) * 2
    assert len(used) == 14
    assert max(used.values()) <= STACK, used


def test_core_s_own_fragments_use_little_stack() -> None:
    import emptcp

    source = Path(emptcp.__file__).parent / "programs" / "core.bpf.o"
    with capture(source) as captured:
        depths = {name: stack_depth(list(decode(f.instructions))) for name, f in captured.fragments.items()}
    assert {f"emptcp.{b}/core_{n}" for b in ("xdp", "tc") for n in ("begin", "flow")} <= set(depths)
    assert max(depths.values()) <= STACK
