/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a BPF C file needs besides types: the kernel's helper functions by number, the notation for maps
 * and sections that libbpf reads, byte order. The numbers are ABI (enum bpf_func_id in linux/bpf.h).
 */
#ifndef EMPTCP_BPF_H
#define EMPTCP_BPF_H

#include <emptcp/uapi.h>

/* `used` in the section also for objects nothing in the file refers to. */
#define SEC(name) __attribute__((section(name), used))

#define __always_inline inline __attribute__((always_inline))
#define __noinline	__attribute__((noinline))
#define __weak		__attribute__((weak))
#define __unused	__attribute__((unused))

/* What the compiler is to lay out in one piece: code that is in no cache is what a packet waits for. */
#define emptcp_likely(condition)   __builtin_expect(!!(condition), 1)
#define emptcp_unlikely(condition) __builtin_expect(!!(condition), 0)

/* What plugins may call. docs/reference/bpf-headers.md is made of it, the fuzzer tries it. */
#define EMPTCP_PUBLIC static __always_inline

/* A map is a struct in SEC(".maps") whose members' types carry the values. */
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name

#define EMPTCP_STRING(text)  EMPTCP_STRING_(text)
#define EMPTCP_STRING_(text) #text

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define bpf_htons(value) __builtin_bswap16(value)
#define bpf_htonl(value) __builtin_bswap32(value)
#define bpf_be64(value)	 __builtin_bswap64(value)
#else
#define bpf_htons(value) (value)
#define bpf_htonl(value) (value)
#define bpf_be64(value)	 (value)
#endif
#define bpf_ntohs(value) bpf_htons(value)
#define bpf_ntohl(value) bpf_htonl(value)

/* A read or write that the compiler may neither drop nor replace by what it knows. Through a map value it
 * also makes the verifier forget what it knew, so that paths which differed in a number become one again. */
#define READ_ONCE(place)	 (*(const volatile typeof(place) *)&(place))
#define WRITE_ONCE(place, value) (*(volatile typeof(place) *)&(place) = (value))

/* 1 if `value` is below `bound`, else 0, without a jump: two ways through a loop's body would make the
 * verifier examine the rest of the loop twice. The empty asm keeps the compiler from turning it into a jump
 * again. */
static __always_inline __u64 emptcp_below(__u64 value, __u64 bound)
{
	__u64 difference = value - bound;

	asm volatile("" : "+r"(difference));
	return difference >> 63;
}

/* A number from 1 to 64, for a helper's size. As one piece of asm right before the call: Linux 5.10 forgets
 * the bounds of a number that the compiler puts on the stack between a check and its use. */
static __always_inline __u64 emptcp_size(__u64 size)
{
	asm volatile("%0 += -1; %0 &= 63; %0 += 1" : "+r"(size));
	return size;
}

#define EMPTCP_HELPER(result, name, number, ...) \
	static result (*const name)(__VA_ARGS__) __unused = (result(*)(__VA_ARGS__))number

/* Maps */
EMPTCP_HELPER(void *, bpf_map_lookup_elem, 1, void *map, const void *key);
EMPTCP_HELPER(long, bpf_map_update_elem, 2, void *map, const void *key, const void *value, __u64 flags);
EMPTCP_HELPER(long, bpf_map_delete_elem, 3, void *map, const void *key);
EMPTCP_HELPER(void *, bpf_sk_storage_get, 107, void *map, void *sk, void *value, __u64 flags);
EMPTCP_HELPER(long, bpf_sk_storage_delete, 108, void *map, void *sk);
EMPTCP_HELPER(long, bpf_spin_lock, 93, void *lock);
EMPTCP_HELPER(long, bpf_spin_unlock, 94, void *lock);

/* Time, numbers */
EMPTCP_HELPER(__u64, bpf_ktime_get_ns, 5, void);
EMPTCP_HELPER(__u64, bpf_ktime_get_boot_ns, 125, void);
EMPTCP_HELPER(__u32, bpf_get_prandom_u32, 7, void);
EMPTCP_HELPER(__u32, bpf_get_smp_processor_id, 8, void);

/* Packets at TC */
EMPTCP_HELPER(long, bpf_skb_load_bytes, 26, const void *skb, __u32 offset, void *to, __u32 len);
EMPTCP_HELPER(long, bpf_skb_store_bytes, 9, struct __sk_buff *skb, __u32 offset, const void *from, __u32 len,
	      __u64 flags);
EMPTCP_HELPER(long, bpf_l3_csum_replace, 10, struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to,
	      __u64 size);
EMPTCP_HELPER(long, bpf_l4_csum_replace, 11, struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to,
	      __u64 flags);
EMPTCP_HELPER(long, bpf_skb_change_tail, 38, struct __sk_buff *skb, __u32 len, __u64 flags);
EMPTCP_HELPER(long, bpf_skb_pull_data, 39, struct __sk_buff *skb, __u32 len);
EMPTCP_HELPER(long, bpf_skb_vlan_push, 18, struct __sk_buff *skb, __be16 vlan_proto, __u16 vlan_tci);
EMPTCP_HELPER(long, bpf_skb_vlan_pop, 19, struct __sk_buff *skb);

/* Packets at XDP, and at both */
EMPTCP_HELPER(long, bpf_xdp_adjust_tail, 65, struct xdp_md *ctx, int delta);
EMPTCP_HELPER(long, bpf_xdp_adjust_head, 44, struct xdp_md *ctx, int delta);
EMPTCP_HELPER(__s64, bpf_csum_diff, 28, const void *from, __u32 from_size, const void *to, __u32 to_size,
	      __wsum seed);
EMPTCP_HELPER(long, bpf_redirect, 23, __u32 ifindex, __u64 flags);
EMPTCP_HELPER(long, bpf_redirect_neigh, 152, __u32 ifindex, struct bpf_redir_neigh *to, int size,
	      __u64 flags);
EMPTCP_HELPER(long, bpf_fib_lookup, 69, void *ctx, struct bpf_fib_lookup *route, int size, __u32 flags);
EMPTCP_HELPER(long, bpf_redirect_map, 51, void *map, __u64 key, __u64 flags);

/* Sockets */
EMPTCP_HELPER(__u64, bpf_get_socket_cookie, 46, void *ctx);
EMPTCP_HELPER(__u64, bpf_get_netns_cookie, 122, void *ctx);
EMPTCP_HELPER(long, bpf_setsockopt, 49, void *socket, int level, int option, void *value, int len);
EMPTCP_HELPER(long, bpf_getsockopt, 57, void *socket, int level, int option, void *value, int len);
EMPTCP_HELPER(long, bpf_sock_ops_cb_flags_set, 59, struct bpf_sock_ops *ops, int flags);
EMPTCP_HELPER(long, bpf_load_hdr_opt, 142, struct bpf_sock_ops *ops, void *found, __u32 len, __u64 flags);
EMPTCP_HELPER(long, bpf_store_hdr_opt, 143, struct bpf_sock_ops *ops, const void *from, __u32 len,
	      __u64 flags);
EMPTCP_HELPER(long, bpf_reserve_hdr_opt, 144, struct bpf_sock_ops *ops, __u32 len, __u64 flags);
EMPTCP_HELPER(void *, bpf_skc_to_tcp_sock, 137, void *sk);

/* To user space, from the kernel */
EMPTCP_HELPER(long, bpf_ringbuf_output, 130, void *ringbuf, void *data, __u64 size, __u64 flags);
EMPTCP_HELPER(void *, bpf_ringbuf_reserve, 131, void *ringbuf, __u64 size, __u64 flags);
EMPTCP_HELPER(void, bpf_ringbuf_submit, 132, void *data, __u64 flags);
EMPTCP_HELPER(void, bpf_ringbuf_discard, 133, void *data, __u64 flags);
EMPTCP_HELPER(long, bpf_seq_write, 127, void *seq, const void *data, __u32 len);
EMPTCP_HELPER(long, bpf_probe_read_kernel, 113, void *to, __u32 size, const void *from);
EMPTCP_HELPER(long, bpf_probe_read_kernel_str, 115, void *to, __u32 size, const void *from);
EMPTCP_HELPER(long, bpf_trace_printk, 6, const char *format, __u32 size, ...);

#endif
