# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emptcp.pybpf import BpfError, Btf, ObjectSpec

SOURCE = """
enum colour { RED = 3, BLUE = 7 };
typedef __u32 tokens[3];
struct inner { __u16 low; };
struct param {
	__u8 first;
	__u32 bits : 3, more : 9;
	enum colour colour;
	tokens tokens;
	struct inner inner;
	const char *text;
	union { __u64 wide; __u8 bytes[8]; };
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct param);
} values SEC(".maps");
SEC("emptcp.xdp/one")
int one(struct xdp_md *ctx, const struct param *param, void *state) { return param->first; }
"""


@pytest.fixture(scope="module")
def built(compile_bpf) -> Path:
    return compile_bpf(SOURCE, "types")


@pytest.fixture(scope="module")
def btf(built: Path) -> Btf:
    return ObjectSpec.read(built).btf


def member(btf: Btf, name: str, struct: str = "param"):
    found = btf.find(struct, "struct")
    assert found is not None
    return next(entry for entry in btf.members(found.id) if entry.name == name)


def test_members_have_the_offsets_and_sizes_the_compiler_gave_them(btf: Btf) -> None:
    found = {
        m.name: (m.offset, m.size) for m in btf.members(btf.find("param", "struct").id) if not m.bitfield
    }
    assert found == {
        "first": (0, 1),
        "colour": (4, 4),
        "tokens": (8, 12),
        "inner": (20, 2),
        "text": (24, 8),
        "": (32, 8),
    }
    assert btf.size(btf.find("param", "struct").id) == 40


def test_bitfields_tell_their_bits(btf: Btf) -> None:
    assert (member(btf, "bits").bits, member(btf, "bits").bit_offset) == (3, 8)
    assert (member(btf, "more").bits, member(btf, "more").bit_offset) == (9, 11)
    assert member(btf, "more").bitfield
    assert not member(btf, "first").bitfield


def test_types_are_described_in_c(btf: Btf) -> None:
    described = [btf.describe(argument) for _, argument in btf.prototype("one").arguments]
    assert described == ["struct xdp_md *", "const struct param *", "void *"]
    assert member(btf, "tokens").description == "tokens"
    assert btf.describe(btf.resolve(member(btf, "tokens").type_id).id) == "__u32[3]"
    assert member(btf, "text").description == "const char *"
    assert member(btf, "colour").description == "enum colour"


def test_an_enum_gives_names_and_numbers(btf: Btf) -> None:
    assert btf.values(member(btf, "colour").type_id) == {"RED": 3, "BLUE": 7}


def test_a_data_section_gives_its_variables(btf: Btf) -> None:
    offset, _size, type_id = btf.variables(".maps")["values"]
    assert offset == 0
    assert [entry.name for entry in btf.members(type_id)] == ["type", "max_entries", "key", "value"]
    assert btf.variables(".nothing") == {}


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (
            ("__u16 low", "__u32 low"),
            "inner.low: __u16 (2 bytes at byte 20) here, __u32 (4 bytes at byte 20) there",
        ),
        (
            ("tokens[3]", "tokens[4]"),
            "tokens: __u32[3] (12 bytes at byte 8) here, __u32[4] (16 bytes at byte 8) there",
        ),
        (("const char *text;", ""), "text: const char * (8 bytes at byte 24) here, absent there"),
        (("bits : 3", "bits : 4"), "bits: __u32 (3 bits at bit 8) here, __u32 (4 bits at bit 8) there"),
        (("*text", "*text, tail"), "tail: absent here, const char (1 byte at byte 32) there"),
        (
            ("const char *text", "__u64 text"),
            "text: const char * (8 bytes at byte 24) here, __u64 (8 bytes at byte 24) there",
        ),
        (
            ("__u8 first", "__s8 first"),
            "first: __u8 (1 byte at byte 0) here, __s8 (1 byte at byte 0) there",
        ),
    ],
)
def test_a_comparison_names_each_field_that_differs(compile_bpf, btf: Btf, change, difference: str) -> None:
    other = ObjectSpec.read(compile_bpf(SOURCE.replace(*change), "changed")).btf
    lines = btf.compare(other, btf.find("param", "struct").id, other.find("param", "struct").id)
    assert difference in lines


def test_a_comparison_names_two_fields_that_differ_in_the_same_way(compile_bpf, btf: Btf) -> None:
    text = SOURCE.replace("struct inner inner;", "struct { __u8 a, b; } pair;")
    both = [
        ObjectSpec.read(compile_bpf(text.replace("__u8 a, b", f"{kind} a; __u8 gap; {kind} b"), kind)).btf
        for kind in ("__u8", "__s8")
    ]
    one, other = (types.find("param", "struct").id for types in both)
    assert [line.split(":")[0] for line in both[0].compare(both[1], one, other)] == ["pair.a", "pair.b"]


def test_a_comparison_does_not_mind_names_of_typedefs_and_qualifiers(compile_bpf, btf: Btf) -> None:
    text = SOURCE.replace("__u8 first", "volatile unsigned char first").replace(
        "tokens tokens", "__u32 tokens[3]"
    )
    other = ObjectSpec.read(compile_bpf(text, "renamed")).btf
    assert btf.compare(other, btf.find("param", "struct").id, other.find("param", "struct").id) == []


def test_it_reads_what_bpftool_reads(built: Path, btf: Btf) -> None:
    tool = shutil.which("bpftool")
    if tool is None:
        pytest.skip("bpftool is not installed: nothing to compare with")
    done = subprocess.run(
        [tool, "-j", "btf", "dump", "file", built], capture_output=True, check=True, timeout=20
    )
    theirs = [
        (entry["id"], entry["kind"].lower(), entry.get("name", ""))
        for entry in json.loads(done.stdout)["types"]
    ]
    mine = [(found.id, found.kind, found.name or "(anon)") for found in btf]
    assert mine == [(number, kind, name or "(anon)") for number, kind, name in theirs]


def test_a_type_that_is_not_there_is_an_error(btf: Btf) -> None:
    with pytest.raises(BpfError, match="has no type 9999"):
        btf.type(9999)
    with pytest.raises(BpfError, match="has no function nothing"):
        btf.prototype("nothing")
    with pytest.raises(BpfError, match="has no members"):
        btf.members(btf.find("colour", "enum").id)


@given(cut=st.integers(min_value=0, max_value=4000))
def test_btf_that_is_cut_short_is_refused(btf: Btf, cut: int) -> None:
    if cut < len(btf.data):
        with pytest.raises(BpfError):
            Btf.read(btf.data[:cut])


@given(where=st.integers(min_value=0), value=st.integers(min_value=0, max_value=255))
def test_damaged_btf_is_read_or_refused_and_nothing_else(btf: Btf, where: int, value: int) -> None:
    data = bytearray(btf.data)
    data[where % len(data)] = value
    try:
        found = Btf.read(bytes(data))
        for entry in found:
            found.describe(entry.id)
            found.size(entry.id)
    except BpfError:
        pass


@pytest.mark.parametrize("kind", [2, 8, 10])  # pointer, typedef, const
def test_a_type_that_contains_itself_is_refused(kind: int) -> None:
    types = struct.pack("<III", 0, kind << 24, 2) + struct.pack("<III", 0, kind << 24, 1)
    with pytest.raises(BpfError, match="contains itself"):
        Btf.read(raw(types))


def test_an_array_of_itself_is_refused() -> None:
    with pytest.raises(BpfError, match="contains itself"):
        Btf.read(raw(struct.pack("<6I", 0, 3 << 24, 0, 1, 1, 2)))


def test_a_signed_enum_has_negative_numbers() -> None:
    signed = 1 << 31 | 6 << 24 | 1
    btf = Btf.read(raw(struct.pack("<5I", 0, signed, 4, 1, 0xFFFFFFFF)))
    assert btf.values(1) == {"low": -1}


def raw(types: bytes) -> bytes:
    """Return BTF of types as they stand in the data, with one string, "low", at 1."""
    strings = b"\0low\0"
    return (
        struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings
    )
