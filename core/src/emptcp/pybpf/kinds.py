# SPDX-License-Identifier: Apache-2.0
"""Names and numbers of program, map, attach and link kinds (``enum bpf_*_type`` in the kernel's bpf.h)."""

from __future__ import annotations

from emptcp.pybpf.errors import BpfError

PROGRAMS = {
    "socket_filter": 1, "kprobe": 2, "sched_cls": 3, "sched_act": 4, "tracepoint": 5, "xdp": 6,
    "perf_event": 7, "cgroup_skb": 8, "cgroup_sock": 9, "sock_ops": 13, "sk_skb": 14, "sk_msg": 16,
    "raw_tracepoint": 17, "cgroup_sock_addr": 18, "sk_reuseport": 21, "flow_dissector": 22,
    "cgroup_sockopt": 25, "tracing": 26, "struct_ops": 27, "ext": 28, "lsm": 29, "sk_lookup": 30,
    "syscall": 31, "netfilter": 32,
}  # fmt: skip

MAPS = {
    "hash": 1, "array": 2, "prog_array": 3, "perf_event_array": 4, "percpu_hash": 5, "percpu_array": 6,
    "stack_trace": 7, "cgroup_array": 8, "lru_hash": 9, "lru_percpu_hash": 10, "lpm_trie": 11,
    "array_of_maps": 12, "hash_of_maps": 13, "devmap": 14, "sockmap": 15, "cpumap": 16, "xskmap": 17,
    "sockhash": 18, "percpu_cgroup_storage": 21, "queue": 22, "stack": 23, "sk_storage": 24,
    "devmap_hash": 25, "struct_ops": 26, "ringbuf": 27, "inode_storage": 28, "task_storage": 29,
    "bloom_filter": 30, "user_ringbuf": 31, "cgrp_storage": 32, "arena": 33,
}  # fmt: skip

PER_CPU = frozenset({"percpu_hash", "percpu_array", "lru_percpu_hash", "percpu_cgroup_storage"})

ATTACH = {
    "cgroup_sock_ops": 3, "trace_raw_tp": 23, "trace_fentry": 24, "trace_iter": 28, "xdp": 37,
    "tcx_ingress": 46, "tcx_egress": 47,
}  # fmt: skip

LINKS = {
    1: "raw_tracepoint", 2: "tracing", 3: "cgroup", 4: "iter", 5: "netns", 6: "xdp", 7: "perf_event",
    8: "kprobe_multi", 9: "struct_ops", 10: "netfilter", 11: "tcx", 12: "uprobe_multi", 13: "netkit",
    14: "sockmap",
}  # fmt: skip


def number(table: dict[str, int], what: str, kind: str) -> int:
    """Return the kernel's number of a kind.

    :raises BpfError: the table has no such name.
    """
    try:
        return table[kind]
    except KeyError:
        raise BpfError(f"'{kind}' is no kind of {what}", fix=f"Known: {', '.join(table)}.") from None


def name(table: dict[str, int], kind: int) -> str:
    """Return the name of a kernel's number; ``kind 99`` when it is newer than this table."""
    return next((text for text, value in table.items() if value == kind), f"kind {kind}")
