# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emptcp.pybpf import BpfError, ObjectSpec

SOURCE = """
struct entry { __u64 packets; __u32 flags; };
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 64);
	__type(key, __u16);
	__type(value, struct entry);
} table SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } events SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 2); __uint(map_flags, 1 << 10);
	__uint(key_size, 4); __uint(value_size, 12);
} sized SEC(".maps");
static __noinline int inner(struct xdp_md *ctx) { return ctx->rx_queue_index; }
SEC("emptcp.xdp/one") int one__xdp(struct xdp_md *ctx)
{
	__u16 key = 1;
	void *found = bpf_map_lookup_elem(&table, &key);
	return found ? inner(ctx) : 0;
}
SEC("emptcp.tc/one") int one__tc(struct __sk_buff *ctx) { return ctx->len; }
SEC("iter/tcp") int each(void *ctx) { return 0; }
SEC("odd") int strange(void *ctx) { volatile char room[40] = {}; return room[3]; }
char LICENSE[] SEC("license") = "Dual BSD/GPL";
"""


@pytest.fixture(scope="module")
def built(compile_bpf) -> Path:
    return compile_bpf(SOURCE, "spec")


@pytest.fixture(scope="module")
def spec(built: Path) -> ObjectSpec:
    return ObjectSpec.read(built)


def test_programs_are_described_by_function_and_section(spec: ObjectSpec) -> None:
    found = {name: (program.section, program.kind) for name, program in spec.programs.items()}
    assert found == {
        "one__xdp": ("emptcp.xdp/one", "xdp"),
        "one__tc": ("emptcp.tc/one", "sched_cls"),
        "each": ("iter/tcp", "tracing"),
        "strange": ("odd", ""),
    }


def test_a_program_tells_its_size_and_stack(spec: ObjectSpec) -> None:
    assert spec.programs["each"].instructions == 2
    assert spec.programs["each"].stack == 0
    assert spec.programs["one__xdp"].stack == 2
    assert 40 <= spec.programs["strange"].stack <= 48


def test_maps_are_described_whether_by_types_or_by_sizes(spec: ObjectSpec) -> None:
    table, events, sized = (spec.maps[name] for name in ("table", "events", "sized"))
    assert (table.kind, table.key_size, table.value_size, table.max_entries) == ("lru_hash", 2, 16, 64)
    assert spec.btf.describe(table.value_type) == "struct entry"
    assert (events.kind, events.key_size, events.value_size, events.max_entries) == ("ringbuf", 0, 0, 4096)
    assert (sized.kind, sized.key_size, sized.value_size, sized.flags) == ("array", 4, 12, 1 << 10)


def test_licence_and_sections_are_readable(spec: ObjectSpec) -> None:
    assert spec.license == "Dual BSD/GPL"
    assert spec.section("license") == b"Dual BSD/GPL\0"
    assert spec.section("emptcp.abi") is None


def test_the_same_file_gives_the_same_order(built: Path, spec: ObjectSpec) -> None:
    again = ObjectSpec.read(built)
    assert (list(again.programs), list(again.maps)) == (list(spec.programs), list(spec.maps))


def test_an_object_without_maps_and_licence_is_fine(compile_bpf) -> None:
    spec = ObjectSpec.read(compile_bpf('SEC("xdp") int pass(struct xdp_md *ctx) { return 2; }', "bare"))
    assert (spec.maps, spec.license, list(spec.programs)) == ({}, "", ["pass"])


def test_a_program_of_another_machine_is_refused() -> None:
    with pytest.raises(BpfError, match="is no BPF object: it was compiled for another machine"):
        ObjectSpec.read(sys.executable)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BpfError, match=r"cannot read the object file .*nothing\.o: No such file"):
        ObjectSpec.read(tmp_path / "nothing.o")


@pytest.mark.parametrize("junk", [b"", b"\x7fELF", bytes(range(256)) * 8, b"table = 'home'\n"])
def test_junk_is_refused_by_name(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "junk.o").write_bytes(junk)
    with pytest.raises(BpfError, match=r"junk\.o is no BPF object"):
        ObjectSpec.read(tmp_path / "junk.o")


@settings(max_examples=60)
@given(where=st.integers(min_value=0), value=st.binary(min_size=1, max_size=4), cut=st.booleans())
def test_a_damaged_object_is_read_or_refused_and_nothing_else(
    built: Path, tmp_path_factory: pytest.TempPathFactory, where: int, value: bytes, cut: bool
) -> None:
    data = bytearray(built.read_bytes())
    place = where % len(data)
    data[place : len(data) if cut else place + len(value)] = value
    damaged = tmp_path_factory.mktemp("damaged") / "damaged.o"
    damaged.write_bytes(bytes(data))
    try:
        spec = ObjectSpec.read(damaged)
        _ = (spec.programs, spec.maps, spec.license)
    except BpfError:
        pass
