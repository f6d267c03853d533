/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the joined programs are compared with: one function per task, written by hand for this task alone.
 *
 * `bare` programs do nothing that was not asked for: IPv4 without VLAN, no check of lengths or fragments, no
 * counters, no look at MPTCP. `whole` ones do by hand what core promises of every policy: only MPTCP packets,
 * fragments and wrong lengths left alone, packets and bytes counted for each stage.
 *
 * At TC they write by helpers, as everybody has to who does not want the kernel's unclone prologue in front
 * of every packet.
 */
#include "flow.h"

#define L2	       14
#define CHECK	       16
#define WINDOW	       14
#define OPTIONS	       20
#define MPTCP	       30
#define TURNS	       8
#define COUNTED_STAGES 9
#define MASKS	       7

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

/* The rest of what core promises; the address of the counters, or NULL: leave the packet alone. */
static __always_inline struct counts *whole(void *ctx, const struct iphdr *ip, const struct tcphdr *tcp,
					    enum backend backend)
{
	__u8 *data = start_of(ctx, backend), *end = end_of(ctx, backend);
	__u32 first = 0, total = bpf_ntohs(ip->tot_len);
	struct counts *counts;

	if (ip->frag_off & bpf_htons(0x3fff) || tcp->doff < 5 || total < ip->ihl * 4 + tcp->doff * 4)
		return NULL;
	if (L2 + total > (backend == XDP ? (__u32)(end - data) : ((struct __sk_buff *)ctx)->len))
		return NULL;
	if (!has_mptcp(end, tcp))
		return NULL;
	counts = bpf_map_lookup_elem(&bench_counts, &first);
	if (counts)
		count(counts, 0, total);
	return counts;
}

static __always_inline void run(void *ctx, enum backend backend, enum selector selector, __u32 actors,
				bool all)
{
	struct iphdr *ip = ip_of(ctx, backend);
	struct counts *counts = NULL;
	struct tcphdr *tcp;
	__u32 i, l4, total;

	if (!ip || ip->protocol != IPPROTO_TCP)
		return;
	tcp = tcp_of(ctx, ip, backend);
	if (!tcp)
		return;
	if (all) {
		counts = whole(ctx, ip, tcp, backend);
		if (!counts)
			return;
		counts[1].packets++;
	}
	l4 = L2 + ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	if (!is_selected(ip, tcp, selector))
		return;
	if (all) {
		counts[1].matches++;
		counts[1].bytes += total;
	}
#pragma clang loop unroll(full)
	for (i = 0; i < actors; i++) {
		if (backend == XDP) {
			toggle_xdp(tcp, settings.masks[i]);
		} else {
			tcp = (void *)(start_of(ctx, TC) + l4);
			if ((__u8 *)(tcp + 1) > end_of(ctx, TC))
				return;
			toggle_tc(ctx, tcp, l4, settings.masks[i]);
		}
		if (all)
			count(counts, 2 + i, total);
	}
}

static __always_inline void look_up(void *ctx, enum backend backend)
{
	struct iphdr *ip = ip_of(ctx, backend);
	struct counts *counts;
	struct tcphdr *tcp;
	__u32 first = 0;

	if (!ip || (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP))
		return;
	tcp = (void *)((__u8 *)ip + ip->ihl * 4);
	if ((__u8 *)tcp + 8 > end_of(ctx, backend) || !is_selected(ip, tcp, IN_FLOWS))
		return;
	counts = bpf_map_lookup_elem(&bench_counts, &first);
	if (counts)
		counts[0].packets++;
}

#define PROGRAM(name, task_xdp, task_tc)     \
	SEC("xdp")                           \
	int name##_xdp(struct xdp_md *ctx)   \
	{                                    \
		task_xdp;                    \
		return XDP_PASS;             \
	}                                    \
	SEC("tc")                            \
	int name##_tc(struct __sk_buff *ctx) \
	{                                    \
		task_tc;                     \
		return TC_ACT_UNSPEC;        \
	}

#define CHAIN(name, selector, actors, all) \
	PROGRAM(name, run(ctx, XDP, selector, actors, all), run(ctx, TC, selector, actors, all))

PROGRAM(empty, (void)ctx, (void)ctx)
PROGRAM(look_up, look_up(ctx, XDP), look_up(ctx, TC))
CHAIN(bare_flows_1, IN_FLOWS, 1, false)
CHAIN(bare_flows_7, IN_FLOWS, 7, false)
CHAIN(bare_flow_1, IS_FLOW, 1, false)
CHAIN(whole_flows_1, IN_FLOWS, 1, true)
CHAIN(whole_flows_7, IN_FLOWS, 7, true)
CHAIN(whole_flow_1, IS_FLOW, 1, true)

char _license[] SEC("license") = "Dual BSD/GPL";
