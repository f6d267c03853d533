/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the hand-written programs are made of: one task, to flip bits of the window of packets of certain
 * flows.
 *
 * At TC they write by helpers, as everybody has to who does not want the kernel's unclone prologue in front
 * of every packet.
 */
#ifndef EMPTCP_BENCH_TASK_H
#define EMPTCP_BENCH_TASK_H

#include "flow.h"

#define L2	14
#define CHECK	16
#define WINDOW	14
#define OPTIONS 20
#define MPTCP	30
#define TURNS	8
#define COUNTED_STAGES \
	18 /* all packets, the selector, up to 15 actors, and one for what the verifier fears */
#define MASKS 15

enum backend { XDP, TC };
enum selector { IN_FLOWS, IS_FLOW };

/* Parameters that can be changed while the program runs, as those of a stage can. */
struct {
	struct bench_flow wanted;
	__u32 masks[MASKS];
} settings;

struct counts {
	__u64 packets;
	__u64 bytes;
	__u64 matches;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counts[COUNTED_STAGES]);
} bench_counts SEC(".maps");

static __always_inline __u8 *start_of(void *ctx, enum backend backend)
{
	if (backend == XDP)
		return (void *)(long)((struct xdp_md *)ctx)->data;
	return (void *)(long)((struct __sk_buff *)ctx)->data;
}

static __always_inline __u8 *end_of(void *ctx, enum backend backend)
{
	if (backend == XDP)
		return (void *)(long)((struct xdp_md *)ctx)->data_end;
	return (void *)(long)((struct __sk_buff *)ctx)->data_end;
}

/* The IPv4 header of a packet of this protocol, or NULL. The ports of UDP are where those of TCP are. */
static __always_inline struct iphdr *ip_of(void *ctx, enum backend backend)
{
	__u8 *data = start_of(ctx, backend), *end = end_of(ctx, backend);
	struct ethhdr *eth = (void *)data;
	struct iphdr *ip = (void *)(data + L2);

	if ((__u8 *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->ihl < 5)
		return NULL;
	return ip;
}

static __always_inline struct tcphdr *tcp_of(void *ctx, const struct iphdr *ip, enum backend backend)
{
	struct tcphdr *tcp = (void *)((__u8 *)ip + ip->ihl * 4);

	return (__u8 *)(tcp + 1) > end_of(ctx, backend) ? NULL : tcp;
}

static __always_inline bool is_selected(const struct iphdr *ip, const struct tcphdr *tcp,
					enum selector selector)
{
	struct bench_flow flow = bench_flow_of(ip, tcp);

	if (selector == IS_FLOW)
		return bench_same_flow(&flow, &settings.wanted);
	return bpf_map_lookup_elem(&bench_flows, &flow) != NULL;
}

static __always_inline __sum16 check_after(__sum16 check, __u16 old, __u16 new)
{
	__u32 sum = (__u16)~check + (__u16)~old + new;

	sum = (sum & 0xffff) + (sum >> 16);
	return ~((sum & 0xffff) + (sum >> 16));
}

static __always_inline void toggle_xdp(struct tcphdr *tcp, __u16 mask)
{
	__u16 old = tcp->window, new = old ^ mask;

	*(__u16 *)((__u8 *)tcp + WINDOW) = new;
	*(__sum16 *)((__u8 *)tcp + CHECK) = check_after(tcp->check, old, new);
}

/* Ends the life of pointers into the packet. */
static __always_inline void toggle_tc(struct __sk_buff *skb, const struct tcphdr *tcp, __u32 l4, __u16 mask)
{
	__u16 old = tcp->window, new = old ^ mask;

	if (!bpf_l4_csum_replace(skb, l4 + CHECK, old, new, sizeof(new)))
		bpf_skb_store_bytes(skb, l4 + WINDOW, &new, sizeof(new), 0);
}

static __always_inline bool has_mptcp(const __u8 *end, const struct tcphdr *tcp)
{
	const __u8 *at = (const __u8 *)tcp + OPTIONS;
	__u32 left = tcp->doff * 4 - OPTIONS, i;

#pragma clang loop unroll(full)
	for (i = 0; i < TURNS; i++) {
		if (left < 3 || left > 40 || at + 2 > end)
			return false;
		if (at[0] == MPTCP)
			return true;
		if (at[0] == 1) {
			at++;
			left--;
			continue;
		}
		if (at[0] == 0 || at[1] < 2 || at[1] > 40)
			return false;
		left -= at[1];
		at += at[1];
	}
	return false;
}

static __always_inline void count(struct counts *counts, __u32 stage, __u32 bytes)
{
	counts[stage].packets++;
	counts[stage].bytes += bytes;
}

/* The rest of what core promises: whether this packet is one that a stage may look at. */
static __always_inline bool is_fit(void *ctx, const struct iphdr *ip, const struct tcphdr *tcp,
				   enum backend backend)
{
	__u8 *data = start_of(ctx, backend), *end = end_of(ctx, backend);
	__u32 total = bpf_ntohs(ip->tot_len);

	if (ip->frag_off & bpf_htons(0x3fff) || tcp->doff < 5 || total < ip->ihl * 4 + tcp->doff * 4)
		return false;
	if (L2 + total > (backend == XDP ? (__u32)(end - data) : ((struct __sk_buff *)ctx)->len))
		return false;
	return has_mptcp(end, tcp);
}

static __always_inline struct counts *all_counts(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&bench_counts, &first);
}

#endif
