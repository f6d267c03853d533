# SPDX-License-Identifier: Apache-2.0
"""What objects need of a kernel, told from their code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emptcp.pybpf import BpfError, needs, since
from emptcp.pybpf.needs import Need

SOURCE = """
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} plain SEC(".maps");
struct {
	__uint(type, 29);
	__uint(map_flags, 1);
	__type(key, int);
	__type(value, __u64);
} tasks SEC(".maps");

static long (*bpf_loop)(__u32 count, void *callback, void *context, __u64 flags) = (void *)181;
extern void bpf_rcu_read_lock(void) __attribute__((section(".ksyms")));
extern void bpf_throw(__u64 cookie) __attribute__((section(".ksyms"), weak));
extern void somebodys(void) __attribute__((section(".ksyms")));

static int each(__u32 index, void *context) { return index > 3; }
static __noinline int deeper(struct xdp_md *ctx) { return bpf_loop(ctx->rx_queue_index, each, 0, 0); }
static __noinline int deep(struct xdp_md *ctx) { return deeper(ctx) + 1; }
__noinline int buffer(struct xdp_md *ctx)
{
	static long (*length)(struct xdp_md *ctx) = (void *)188;
	return length(ctx);
}

SEC("emptcp.xdp/old") int old__xdp(struct xdp_md *ctx)
{
	__u32 key = 0;
	__u64 *found = bpf_map_lookup_elem(&plain, &key);
	if (found)
		__sync_fetch_and_add(found, bpf_ktime_get_boot_ns());
	return 2;
}
SEC("emptcp.xdp/loops") int loops__xdp(struct xdp_md *ctx) { return deep(ctx); }
SEC("emptcp.xdp/long") int long__xdp(struct xdp_md *ctx) { return buffer(ctx); }
SEC("emptcp.xdp/counts") int counts__xdp(struct xdp_md *ctx)
{
	__u32 key = 0;
	__u64 *found = bpf_map_lookup_elem(&plain, &key);
	return found ? __sync_fetch_and_add(found, 1) : 2;
}
SEC("emptcp.xdp/calls") int calls__xdp(struct xdp_md *ctx)
{
	bpf_rcu_read_lock();
	return 2;
}
SEC("emptcp.xdp/asks") int asks__xdp(struct xdp_md *ctx)
{
	if (bpf_throw)
		bpf_throw(1);
	return 2;
}
SEC("emptcp.xdp/module") int module__xdp(struct xdp_md *ctx)
{
	somebodys();
	return 2;
}
SEC("sockops") int events(struct bpf_sock_ops *ctx) { return !!bpf_get_netns_cookie(ctx); }
SEC("xdp") int cookie(struct xdp_md *ctx) { return !!bpf_get_netns_cookie(ctx); }
char LICENSE[] SEC("license") = "Dual BSD/GPL";
"""


@pytest.fixture(scope="module")
def built(compile_bpf) -> Path:
    return compile_bpf(SOURCE, "needs")


@pytest.mark.parametrize(
    ("program", "found"),
    [
        ("old__xdp", []),
        ("loops__xdp", ["the address of a function (5.13)", "bpf_loop (5.17)"]),
        ("long__xdp", ["bpf_xdp_get_buff_len (5.18)"]),
        ("counts__xdp", ["atomics that give a value back, or do more than add (5.12)"]),
        ("calls__xdp", ["bpf_rcu_read_lock (6.2)"]),
        ("asks__xdp", []),
        ("module__xdp", ["somebodys (5.13)"]),
        ("events", ["bpf_get_netns_cookie in sock_ops programs (5.15)"]),
        ("cookie", []),
    ],
)
def test_a_program_needs_what_its_own_code_and_what_it_calls_uses(
    built: Path, program: str, found: list[str]
) -> None:
    assert [need.text for need in needs.of_program(built, program)] == found


def test_an_object_needs_what_its_maps_need(built: Path) -> None:
    assert needs.of_maps(built) == [Need((5, 11), "a map of kind task_storage")]


def test_a_program_that_is_not_there_is_an_error(built: Path) -> None:
    with pytest.raises(BpfError, match=r"needs.bpf.o has no program 'nothing'"):
        needs.of_program(built, "nothing")


@pytest.mark.parametrize(
    ("operation", "offset", "value", "found"),
    [
        (0xBF, 0, 0, None),  # r1 = r2
        (0xBF, 8, 0, since.CPU_V4),  # r1 = (s8)r2
        (0x91, 0, 0, since.CPU_V4),  # r1 = *(s8 *)(r2 + 0)
        (0x79, 8, 0, None),  # r1 = *(u64 *)(r2 + 8)
        (0x3F, 1, 0, since.CPU_V4),  # r1 s/= r2
        (0x3F, 0, 0, None),
        (0xD7, 0, 16, since.CPU_V4),  # bswap16
        (0xDC, 0, 16, None),  # be16
        (0x06, 0, 7, since.CPU_V4),  # gotol
        (0x05, 7, 0, None),  # goto
        (0xE5, 7, 0, since.MAY_GOTO),
        (0xDB, 0, 0, None),  # lock *(u64 *)(r1 + 0) += r2
        (0xDB, 0, 1, since.ATOMICS),  # .. and fetch
        (0xC3, 0, 0xE1, since.ATOMICS),  # xchg
        (0xDB, 0, 0x100, since.ACQUIRE),
        (0x7B, -8, 0, None),  # *(u64 *)(r10 - 8) = r1
    ],
)
def test_instructions_are_dated(operation: int, offset: int, value: int, found: since.Version | None) -> None:
    assert [need.version for need in needs._instruction(operation, offset, value)] == (
        [found] if found else []
    )


def test_helpers_have_the_numbers_of_the_kernels_header() -> None:
    header = Path("/usr/include/linux/bpf.h").read_text(encoding="utf-8")
    numbers = dict(enumerate(f"bpf_{name}" for name in re.findall(r"\tFN\((\w+)\)", header)))
    ours = {number: name for number, (name, _) in since.HELPERS.items() if number in numbers}
    assert len(ours) > 50
    assert ours == {number: numbers[number] for number in ours}
    assert all(numbers[number] == name for (number, _), (name, _) in since.IN_KINDS.items())
