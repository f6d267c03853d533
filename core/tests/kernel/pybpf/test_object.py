# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from pathlib import Path

import pytest

from emptcp.pybpf import BpfError, VerifierError, load_object

pytestmark = pytest.mark.kernel

COUNTING = """
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} runs SEC(".maps");
static int count(void)
{
	__u32 key = 0;
	__u64 *runs_now = bpf_map_lookup_elem(&runs, &key);
	if (runs_now)
		*runs_now += 1;
	return 1;
}
SEC("xdp") int first(struct xdp_md *ctx) { return count(); }
SEC("xdp") int second(struct xdp_md *ctx) { return count() + 1; }
char LICENSE[] SEC("license") = "Dual BSD/GPL";
"""
BAD = """
SEC("xdp") int good(struct xdp_md *ctx) { return 2; }
SEC("xdp") int bad(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data;
	return data[14];
}
char LICENSE[] SEC("license") = "Dual BSD/GPL";
"""


def test_programs_and_maps_outlive_libbpfs_object(compile_bpf) -> None:
    with load_object(compile_bpf(COUNTING, "counting")) as loaded:
        assert [loaded.programs[name].test_run(bytes(64)).retval for name in ("first", "second")] == [1, 2]
        assert struct.unpack("=Q", loaded.maps["runs"].lookup(bytes(4)) or b"") == (2,)
        assert loaded.btf is not None


def test_only_the_wanted_programs_are_loaded(compile_bpf) -> None:
    with load_object(compile_bpf(COUNTING, "counting"), programs=["second"]) as loaded:
        assert list(loaded.programs) == ["second"]


def test_a_map_is_shared_by_two_loads(compile_bpf) -> None:
    built = compile_bpf(COUNTING, "counting")
    with load_object(built) as one, load_object(built, existing={"runs": one.maps["runs"]}) as two:
        one.programs["first"].test_run(bytes(64))
        two.programs["first"].test_run(bytes(64))
        assert struct.unpack("=Q", two.maps["runs"].lookup(bytes(4)) or b"") == (2,)


def test_a_rejected_program_is_named_with_its_c_line(
    compile_bpf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path))
    with pytest.raises(VerifierError) as caught:
        load_object(compile_bpf(BAD, "bad"))
    assert "the verifier refuses 'bad' of bad.bpf.o: R1 offset is outside of the packet" in str(caught.value)
    assert "return data[14];" in str(caught.value)
    assert caught.value.log_file == tmp_path / "verifier-bad.log"


def test_a_map_the_kernel_refuses_is_named(compile_bpf) -> None:
    text = COUNTING.replace("__uint(max_entries, 1)", "__uint(max_entries, 0)")
    with pytest.raises(BpfError, match=r"cannot load huge\.bpf\.o: .*map 'runs': failed to create"):
        load_object(compile_bpf(text, "huge"))
