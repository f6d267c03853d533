# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from emptcp.pybpf import BpfError, Btf, ObjectSpec, image
from emptcp.pybpf.btf import empty_sections

WITHOUT_NAME = """
SEC("xdp") int which(struct xdp_md *ctx)
{
	const __u64 table[] = {31, 41, 59, 26, 53, 58, 97, 93, 23, 84, 62, 64, 33, 83, 27, 95};
	return table[ctx->rx_queue_index & 15];
}
char LICENSE[] SEC("license") = "Dual BSD/GPL";
"""
NAMED = """
const volatile __u32 limit = 7;
SEC("xdp") int which(struct xdp_md *ctx) { return limit; }
char LICENSE[] SEC("license") = "Dual BSD/GPL";
"""


def types_in(data: bytes, path: Path) -> bytes:
    """Return the part of an image that the types of the object at ``path`` stand in."""
    original = ObjectSpec.read(path).section(".BTF")
    assert original is not None
    start = path.read_bytes().index(original)
    return data[start : start + len(original)]


def test_a_section_without_variables_is_described_as_nothing(compile_bpf) -> None:
    path = compile_bpf(WITHOUT_NAME, "unnamed")
    before, after = path.read_bytes(), image.read(path)
    types = types_in(after, path)
    assert len(empty_sections(types_in(before, path))) == 1
    assert empty_sections(types) == []
    assert sum(old != new for old, new in zip(before, after, strict=True)) <= 12
    old, new = list(Btf.read(types_in(before, path))), list(Btf.read(types))
    changed = [(a.kind, b.kind, b.name, b.ref) for a, b in zip(old, new, strict=True) if a != b]
    assert changed == [("datasec", "const", "", 0)]


def test_any_other_object_stays_as_it_is(compile_bpf) -> None:
    path = compile_bpf(NAMED, "named")
    assert image.read(path) == path.read_bytes()


def test_what_is_no_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "junk.o").write_text("no object")
    with pytest.raises(BpfError, match=r"junk\.o is no BPF object"):
        image.read(tmp_path / "junk.o")
