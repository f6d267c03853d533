# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
import threading
from pathlib import Path

import pytest

from emptcp.pybpf import (
    BpfError,
    CapturedObject,
    Fragment,
    Map,
    MapMismatch,
    ObjectSpec,
    capture,
    load_btf,
    load_object,
    load_program,
)
from emptcp.pybpf.likeness import of_object

pytestmark = pytest.mark.kernel

SOURCE = """
struct entry { __u32 first; __u32 second; };
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct entry);
} own SEC(".maps"), shared SEC(".maps");
const volatile __u32 limit = 7;

static __noinline int add_own(__u32 key)
{
	struct entry *entry = bpf_map_lookup_elem(&own, &key);
	return entry ? entry->first + limit : 0;
}
__noinline int add_shared(struct xdp_md *ctx, __u32 key)
{
	struct entry *entry = bpf_map_lookup_elem(&shared, &key);
	return entry ? entry->second + ctx->rx_queue_index : 0;
}
SEC("emptcp.xdp/sum") int sum__xdp(struct xdp_md *ctx)
{
	return add_own(1) + add_shared(ctx, 2);
}
struct param { __u32 bytes; };
SEC("emptcp.xdp/five")
int five__xdp(struct xdp_md *ctx, void *parsed, const struct param *param, void *state, void *flow)
{
	return param->bytes;
}
SEC("emptcp.tc/five")
int five__tc(struct __sk_buff *ctx, void *parsed, const struct param *param, void *state, void *flow)
{
	return param->bytes;
}
SEC("xdp") int plain(struct xdp_md *ctx) { return 1 + add_shared(ctx, 3); }
char LICENSE[] SEC("license") = "Dual BSD/GPL";
"""


@pytest.fixture(scope="module")
def built(compile_bpf) -> Path:
    return compile_bpf(SOURCE, "fragments")


@pytest.fixture
def shared():
    with Map.create("array", 4, 16, 4, name="shared") as made:
        yield made


def load(captured: CapturedObject, fragment: Fragment):
    """Load a fragment that takes the context alone, as a program of its own."""
    names = b"".join(struct.pack("=II", *record) for record in fragment.functions)
    with load_btf(captured.btf.data) as btf:
        return load_program("xdp", fragment.instructions, btf=btf.fd, func_info=names, lines=fragment.lines)


def test_every_fragment_is_found_by_section_and_no_ordinary_program(built: Path) -> None:
    with capture(built) as captured:
        assert {name: fragment.function for name, fragment in captured.fragments.items()} == {
            "emptcp.xdp/sum": "sum__xdp",
            "emptcp.xdp/five": "five__xdp",
            "emptcp.tc/five": "five__tc",
        }
        assert set(captured.maps) == {
            "own",
            "shared",
            next(m for m in captured.maps if m.endswith(".rodata")),
        }


def test_subprograms_come_appended_with_their_functions(built: Path) -> None:
    with capture(built) as captured:
        fragment = captured.fragments["emptcp.xdp/sum"]
        starts = [start for start, _ in fragment.functions]
        names = [captured.btf.type(number).name for _, number in fragment.functions]
    assert names == ["sum__xdp", "add_own", "add_shared"]
    assert starts == sorted(starts)
    assert starts[0] == 0
    assert starts[1] == fragment.body < fragment.count == len(fragment.instructions) // 8


def test_lines_tell_file_text_and_place_by_instruction(built: Path) -> None:
    with capture(built) as captured:
        lines = captured.fragments["emptcp.tc/five"].lines
    wanted = SOURCE.splitlines().index("int five__tc(struct __sk_buff *ctx, void *parsed, "
                                       "const struct param *param, void *state, void *flow)")  # fmt: skip
    found = next(line for line in lines if "return param->bytes" in line.text)
    assert found.file.endswith("fragments.bpf.c")
    # Three lines stand before the text.
    assert found.line == 3 + wanted + 3
    assert [line.offset for line in lines] == sorted(line.offset for line in lines)


def test_the_prototype_tells_the_parameters(built: Path) -> None:
    with capture(built) as captured:
        prototype = captured.btf.prototype("five__xdp")
        assert [captured.btf.describe(kind) for _, kind in prototype.arguments][2] == "const struct param *"


def test_captured_instructions_run_with_their_maps_constants_and_calls(built: Path, shared: Map) -> None:
    shared.update(struct.pack("=I", 2), struct.pack("=4I", 0, 500, 0, 0))
    with capture(built, {"shared": shared}) as captured:
        captured.maps["own"].update(struct.pack("=I", 1), struct.pack("=2I", 30, 0))
        with load(captured, captured.fragments["emptcp.xdp/sum"]) as program:
            assert program.test_run(bytes(64)).retval == 30 + 7 + 500
            assert shared.id in program.info.map_ids
            assert captured.maps["own"].id in program.info.map_ids


def test_a_function_is_the_same_code_in_all_objects_with_the_same_maps(built: Path, shared: Map) -> None:
    def function(captured: CapturedObject, name: str) -> bytes:
        fragment = captured.fragments["emptcp.xdp/sum"]
        names = [captured.btf.type(number).name for _, number in fragment.functions]
        starts = [8 * start for start, _ in fragment.functions]
        ends = [*starts[1:], len(fragment.instructions)]
        place = names.index(name)
        return fragment.instructions[starts[place] : ends[place]]

    with capture(built, {"shared": shared}) as one, capture(built, {"shared": shared}) as other:
        assert function(one, "add_shared") == function(other, "add_shared")
        assert function(one, "add_own") != function(other, "add_own")


def test_a_shared_map_may_have_grown_but_not_shrunk_or_changed(built: Path) -> None:
    with (
        Map.create("array", 4, 4, 4) as small,
        pytest.raises(BpfError, match=r"map 'shared' .* does not fit"),
    ):
        capture(built, {"shared": small})
    with Map.create("hash", 4, 16, 4) as other, pytest.raises(BpfError, match="does not fit"):
        capture(built, {"shared": other})


def test_maps_that_the_object_does_not_name_are_no_matter(built: Path, shared: Map) -> None:
    with capture(built, {"shared": shared, "emptcp_events": shared}) as captured:
        assert captured.maps["shared"].id == shared.id


def test_an_existing_map_that_is_alike_is_used(built: Path) -> None:
    with capture(built) as first, capture(built, existing={"own": first.maps["own"]}) as second:
        assert second.maps["own"].id == first.maps["own"].id
        assert second.maps["shared"].id != first.maps["shared"].id


def test_an_existing_map_of_another_layout_is_refused_field_by_field(compile_bpf, built: Path) -> None:
    changed = compile_bpf(
        SOURCE.replace("__u32 first; __u32 second;", "__u32 first; __u16 second; __u16 third;"), "new"
    )
    with capture(built) as first, pytest.raises(MapMismatch, match="its map 'own' differs") as caught:
        capture(changed, existing={"own": first.maps["own"]})
    assert caught.value.differences == [
        "value.second: __u16 (2 bytes at byte 4) here, __u32 (4 bytes at byte 4) there",
        "value.third: __u16 (2 bytes at byte 6) here, absent there",
    ]


def test_a_borrowed_map_is_made_with_its_owners_entries_and_flags(
    compile_bpf, built: Path, shared: Map
) -> None:
    owner = of_object(ObjectSpec.read(built), "own")
    borrower = compile_bpf(SOURCE.replace("__uint(max_entries, 4);", ""), "borrower")
    with capture(borrower, {"shared": shared}, borrowed={"own": owner}) as captured:
        assert captured.maps["own"].info.max_entries == 4


def test_a_borrower_of_an_array_that_counts_on_other_entries_is_refused(compile_bpf, built: Path) -> None:
    owner = of_object(ObjectSpec.read(built), "own")
    borrower = compile_bpf(SOURCE.replace("max_entries, 4", "max_entries, 8"), "counting")
    with pytest.raises(MapMismatch, match="entries: 8 here, 4 there"):
        capture(borrower, borrowed={"own": owner})


def test_capturing_in_several_threads_mixes_nothing_up(built: Path) -> None:
    found: list[set[str]] = []

    def work() -> None:
        for _ in range(3):
            with capture(built) as captured:
                found.append(set(captured.fragments))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert found == [{"emptcp.xdp/sum", "emptcp.xdp/five", "emptcp.tc/five"}] * 9


def test_an_ordinary_program_of_the_same_object_can_be_loaded_beside(built: Path, shared: Map) -> None:
    shared.update(struct.pack("=I", 3), struct.pack("=4I", 0, 1, 0, 0))
    with load_object(built, {"shared": shared}) as loaded:
        assert list(loaded.programs) == ["plain"]
        assert loaded.programs["plain"].test_run(bytes(64)).retval == 2


def test_an_object_without_types_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "plain.c"
    source.write_text('__attribute__((section("emptcp.xdp/x"))) int x(void *c) { return 0; }')
    import subprocess

    output = tmp_path / "plain.o"
    subprocess.run(["clang", "-target", "bpf", "-O2", "-c", source, "-o", output], check=True, timeout=20)
    with pytest.raises(BpfError, match=r"plain\.o has no BTF") as caught:
        capture(output)
    assert caught.value.fix == "Compile it with -g."


def test_junk_is_refused(tmp_path: Path) -> None:
    (tmp_path / "junk.o").write_text("no object")
    with pytest.raises(BpfError, match=r"junk\.o is no BPF object: "):
        capture(tmp_path / "junk.o")
    with pytest.raises(BpfError, match="there is no object file"):
        capture(tmp_path / "none.o")
