# SPDX-License-Identifier: Apache-2.0
"""Which kernel brought what a BPF program can use: helpers, kfuncs, kinds of maps, instructions.

Only what came after :data:`BASE` is told. From the kernel's own history (``include/uapi/linux/bpf.h`` and the
``*_func_proto`` functions of each kind of program); a test holds the numbers to the kernel it runs on.
"""

from __future__ import annotations

from collections.abc import Iterable

Version = tuple[int, int]

BASE: Version = (5, 10)
"""The lowest kernel that emptcp runs on."""

# Each row: the kernel, and the helpers it brought, whose numbers go on from the row before.
_FIRST = 156
_ROWS: tuple[tuple[Version, str], ...] = (
    ((5, 11), "task_storage_get task_storage_delete get_current_task_btf bprm_opts_set ktime_get_coarse_ns"),
    ((5, 11), "ima_inode_hash sock_from_file"),
    ((5, 12), "check_mtu"),
    ((5, 13), "for_each_map_elem snprintf"),
    ((5, 14), "sys_bpf btf_find_by_name_kind sys_close"),
    ((5, 15), "timer_init timer_set_callback timer_start timer_cancel get_func_ip get_attach_cookie"),
    ((5, 15), "task_pt_regs"),
    ((5, 16), "get_branch_snapshot trace_vprintk skc_to_unix_sock kallsyms_lookup_name"),
    ((5, 17), "find_vma loop strncmp get_func_arg get_func_ret get_func_arg_cnt"),
    ((5, 18), "get_retval set_retval xdp_get_buff_len xdp_load_bytes xdp_store_bytes copy_from_user_task"),
    ((5, 18), "skb_set_tstamp ima_file_hash"),
    ((5, 19), "kptr_xchg map_lookup_percpu_elem skc_to_mptcp_sock dynptr_from_mem ringbuf_reserve_dynptr"),
    ((5, 19), "ringbuf_submit_dynptr ringbuf_discard_dynptr dynptr_read dynptr_write dynptr_data"),
    ((6, 0), "tcp_raw_gen_syncookie_ipv4 tcp_raw_gen_syncookie_ipv6 tcp_raw_check_syncookie_ipv4"),
    ((6, 0), "tcp_raw_check_syncookie_ipv6"),
    ((6, 1), "ktime_get_tai_ns user_ringbuf_drain"),
    ((6, 2), "cgrp_storage_get cgrp_storage_delete"),
)

HELPERS: dict[int, tuple[str, Version]] = {
    number: (f"bpf_{name}", version)
    for number, (name, version) in enumerate(
        ((name, version) for version, names in _ROWS for name in names.split()), _FIRST
    )
}
"""Number of a helper -> its name and its kernel. No helper was added since; kfuncs are."""

BEYOND = _FIRST + len(HELPERS)
"""The first number that no kernel known here has."""

IN_KINDS: dict[tuple[int, str], tuple[str, Version]] = {
    (46, "tracing"): ("bpf_get_socket_cookie", (5, 12)),
    (49, "tracing"): ("bpf_setsockopt", (5, 15)),
    (57, "tracing"): ("bpf_getsockopt", (5, 15)),
    (122, "sock_ops"): ("bpf_get_netns_cookie", (5, 15)),
    (122, "sched_cls"): ("bpf_get_netns_cookie", (6, 15)),
}
"""Helpers that are older, by number and kind of program: the kernel that allowed them in that kind."""

MAPS: dict[str, Version] = {
    "task_storage": (5, 11),
    "bloom_filter": (5, 16),
    "user_ringbuf": (6, 1),
    "cgrp_storage": (6, 2),
    "arena": (6, 9),
}

_KFUNCS: dict[Version, str] = {
    (5, 18): "bpf_xdp_ct_lookup bpf_skb_ct_lookup bpf_ct_release",
    (6, 0): "bpf_xdp_ct_alloc bpf_skb_ct_alloc bpf_ct_insert_entry bpf_ct_set_timeout bpf_ct_change_timeout "
    "bpf_ct_set_status bpf_ct_change_status",
    (6, 1): "bpf_ct_set_nat_info",
    (6, 2): "bpf_obj_new_impl bpf_obj_drop_impl bpf_list_pop_front bpf_list_pop_back bpf_cast_to_kern_ctx "
    "bpf_rdonly_cast bpf_rcu_read_lock bpf_rcu_read_unlock bpf_skb_get_xfrm_info bpf_skb_set_xfrm_info",
    (6, 3): "bpf_rbtree_remove bpf_rbtree_first bpf_xdp_metadata_rx_timestamp bpf_xdp_metadata_rx_hash",
    (6, 4): "bpf_refcount_acquire_impl bpf_list_push_front_impl bpf_list_push_back_impl bpf_rbtree_add_impl "
    "bpf_dynptr_slice bpf_dynptr_slice_rdwr bpf_dynptr_from_skb bpf_dynptr_from_xdp bpf_iter_num_new "
    "bpf_iter_num_next bpf_iter_num_destroy bpf_skb_set_fou_encap bpf_skb_get_fou_encap",
    (6, 5): "bpf_dynptr_adjust bpf_dynptr_is_null bpf_dynptr_is_rdonly bpf_dynptr_size bpf_dynptr_clone "
    "bpf_sock_destroy",
    (6, 6): "bpf_map_sum_elem_count",
    (6, 7): "bpf_percpu_obj_new_impl bpf_percpu_obj_drop_impl bpf_throw",
    (6, 8): "bpf_xdp_metadata_rx_vlan_tag bpf_xdp_get_xfrm_state bpf_xdp_xfrm_state_release",
    (6, 9): "bpf_arena_alloc_pages bpf_arena_free_pages",
    (6, 10): "bpf_wq_init bpf_wq_set_callback_impl bpf_wq_start bpf_preempt_disable bpf_preempt_enable "
    "bpf_crypto_ctx_create bpf_crypto_ctx_release bpf_crypto_ctx_acquire bpf_crypto_encrypt "
    "bpf_crypto_decrypt",
}

KFUNCS: dict[str, Version] = {name: version for version, names in _KFUNCS.items() for name in names.split()}
"""Functions of the kernel that programs can call by name. There are more; modules bring their own."""

FIRST_KFUNC: Version = (5, 13)
"""Before it no program could call a function of the kernel by name (``BPF_PSEUDO_KFUNC_CALL``)."""

ATOMICS: Version = (5, 12)
CALLBACKS: Version = (5, 13)
CPU_V4: Version = (6, 6)
MAY_GOTO: Version = (6, 9)
ACQUIRE: Version = (6, 15)
"""Instructions: atomics other than adding; addresses of functions; ``-mcpu=v4``; ``may_goto``;
``load_acquire`` and ``store_release``."""


def highest(versions: Iterable[Version]) -> Version:
    """Return the newest of some kernels, :data:`BASE` at least."""
    return max([BASE, *versions])


def text(version: Version) -> str:
    """Return a kernel as one says it: ``"5.10"``."""
    return f"{version[0]}.{version[1]}"
