/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A chain as the eMPTCP paper describes it (section IV-A, Fig. 4), for the task of monolith.bpf.c. The first
 * program puts the chain context in front of the packet, an entry of four bytes for each stage: the next
 * stage, where the parameter stands, two bytes of parameter. Each stage is a program that takes its entry
 * off, parses the packet anew, does its work, counts, and calls the next one through the program array. At TC
 * the entries are in skb->cb, which has room for five.
 *
 * It stays as it is: figures that compare with it can then be compared over time.
 */
#include "task.h"

#define STAGES	  16
#define CB	  5
#define LAST	  255
#define IMMEDIATE 0x40

EMPTCP_HELPER(long, bpf_tail_call, 12, void *ctx, void *programs, __u32 index);
EMPTCP_HELPER(long, bpf_xdp_adjust_meta, 54, struct xdp_md *ctx, int delta);

struct entry {
	__u8 next;
	__u8 place; /* of the parameter: IMMEDIATE or none; in the six reserved bits which counters are its
		       own */
	__u16 immediate;
};

/* Written by user space. */
struct entry chain[STAGES] SEC(".data.chain") = {};

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, STAGES);
	__type(key, __u32);
	__type(value, __u32);
} bench_programs SEC(".maps");

/* Entry 0 is the first stage's. At XDP it is the first in front of the packet. */
static __always_inline bool push_xdp(struct xdp_md *ctx, __u32 stages)
{
	struct entry *entries;
	__u32 i;

	if (bpf_xdp_adjust_meta(ctx, -(int)(stages * sizeof(struct entry))))
		return false;
	entries = (void *)(long)ctx->data_meta;
	if ((void *)(entries + stages) > (void *)(long)ctx->data)
		return false;
#pragma clang loop unroll(full)
	for (i = 0; i < stages; i++)
		entries[i] = chain[i];
	return true;
}

static __always_inline bool pop_xdp(struct xdp_md *ctx, struct entry *own)
{
	struct entry *entries = (void *)(long)ctx->data_meta;

	if ((void *)(entries + 1) > (void *)(long)ctx->data)
		return false;
	*own = entries[0];
	return !bpf_xdp_adjust_meta(ctx, sizeof(struct entry));
}

static __always_inline void push_tc(struct __sk_buff *ctx)
{
	const __u32 *entries = (const __u32 *)chain;

	ctx->cb[0] = entries[0];
	ctx->cb[1] = entries[1];
	ctx->cb[2] = entries[2];
	ctx->cb[3] = entries[3];
	ctx->cb[4] = entries[4];
}

static __always_inline void pop_tc(struct __sk_buff *ctx, struct entry *own)
{
	__u32 first = ctx->cb[0];

	__builtin_memcpy(own, &first, sizeof(first));
	ctx->cb[0] = ctx->cb[1];
	ctx->cb[1] = ctx->cb[2];
	ctx->cb[2] = ctx->cb[3];
	ctx->cb[3] = ctx->cb[4];
	ctx->cb[4] = 0;
}

static __always_inline bool pop(void *ctx, enum backend backend, struct entry *own)
{
	if (backend == XDP)
		return pop_xdp(ctx, own);
	pop_tc(ctx, own);
	return true;
}

/* Whoever does not match leaves no entry behind. */
static __always_inline void drop_entries(void *ctx, enum backend backend)
{
	struct xdp_md *xdp = ctx;

	if (backend == XDP)
		bpf_xdp_adjust_meta(xdp, (int)(xdp->data - xdp->data_meta));
}

struct packet {
	struct entry own;
	struct iphdr *ip;
	struct tcphdr *tcp;
	struct counts *counts;
};

/* What every stage begins with: take its entry off, and parse the packet anew. False: it is left alone. */
static __always_inline bool begin(void *ctx, enum backend backend, struct packet *packet)
{
	if (!pop(ctx, backend, &packet->own))
		return false;
	packet->ip = ip_of(ctx, backend);
	if (!packet->ip || packet->ip->protocol != IPPROTO_TCP)
		return false;
	packet->tcp = tcp_of(ctx, packet->ip, backend);
	if (!packet->tcp)
		return false;
	if (!is_fit(ctx, packet->ip, packet->tcp, backend))
		return false;
	packet->counts = all_counts();
	return packet->counts != NULL;
}

static __always_inline void call_next(void *ctx, const struct packet *packet)
{
	if (packet->own.next != LAST)
		bpf_tail_call(ctx, &bench_programs, packet->own.next);
}

static __always_inline void select(void *ctx, enum backend backend)
{
	struct packet packet = {};
	__u32 total;

	if (!begin(ctx, backend, &packet))
		return drop_entries(ctx, backend);
	total = bpf_ntohs(packet.ip->tot_len);
	count(packet.counts, 0, total);
	packet.counts[1].packets++;
	if (!is_selected(packet.ip, packet.tcp, IN_FLOWS))
		return drop_entries(ctx, backend);
	packet.counts[1].matches++;
	packet.counts[1].bytes += total;
	call_next(ctx, &packet);
}

static __always_inline void toggle(void *ctx, enum backend backend)
{
	struct packet packet = {};
	__u32 total, l4;

	if (!begin(ctx, backend, &packet))
		return drop_entries(ctx, backend);
	total = bpf_ntohs(packet.ip->tot_len);
	l4 = L2 + packet.ip->ihl * 4;
	if (packet.own.place & IMMEDIATE && backend == XDP)
		toggle_xdp(packet.tcp, packet.own.immediate);
	else if (packet.own.place & IMMEDIATE)
		toggle_tc(ctx, packet.tcp, l4, packet.own.immediate);
	count(packet.counts, 2 + (packet.own.place & (STAGES - 1)), total);
	call_next(ctx, &packet);
}

#define ROOT_XDP(actors)                                        \
	SEC("xdp")                                              \
	int paper_flows_##actors##_xdp(struct xdp_md *ctx)      \
	{                                                       \
		if (push_xdp(ctx, 1 + (actors)))                \
			bpf_tail_call(ctx, &bench_programs, 0); \
		return XDP_PASS;                                \
	}

#define ROOT_TC(actors)                                               \
	_Static_assert(1 + (actors) <= CB, "skb->cb has five words"); \
	SEC("tc")                                                     \
	int paper_flows_##actors##_tc(struct __sk_buff *ctx)          \
	{                                                             \
		push_tc(ctx);                                         \
		bpf_tail_call(ctx, &bench_programs, 0);               \
		return TC_ACT_UNSPEC;                                 \
	}

ROOT_XDP(1)
ROOT_XDP(3)
ROOT_XDP(7)
ROOT_XDP(15)
ROOT_TC(1)
ROOT_TC(3)

#define STAGE(name)                                  \
	SEC("xdp")                                   \
	int paper_##name##_xdp(struct xdp_md *ctx)   \
	{                                            \
		name(ctx, XDP);                      \
		return XDP_PASS;                     \
	}                                            \
	SEC("tc")                                    \
	int paper_##name##_tc(struct __sk_buff *ctx) \
	{                                            \
		name(ctx, TC);                       \
		return TC_ACT_UNSPEC;                \
	}

STAGE(select)
STAGE(toggle)

char _license[] SEC("license") = "Dual BSD/GPL";
