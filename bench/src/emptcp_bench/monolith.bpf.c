/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the joined programs are compared with: one function per task, written by hand for this task alone.
 *
 * `bare` programs do nothing that was not asked for: IPv4 without VLAN, no check of lengths or fragments, no
 * counters, no look at MPTCP. `whole` ones do by hand what core promises of every policy: only MPTCP packets,
 * fragments and wrong lengths left alone, packets and bytes counted for each stage.
 * `calls` ones do the same as `whole`, an actor being a subprogram that is called.
 */
#include "task.h"

enum extent { BARE, WHOLE, CALLS };

/* Rewrite the window and count, where the pointers that a TC program had are gone. */
static __always_inline bool act(void *ctx, enum backend backend, __u32 l4, __u32 mask, struct counts *counts,
				__u32 total)
{
	struct tcphdr *tcp = (void *)(start_of(ctx, backend) + l4);

	if ((__u8 *)(tcp + 1) > end_of(ctx, backend))
		return false;
	if (backend == XDP)
		toggle_xdp(tcp, mask);
	else
		toggle_tc(ctx, tcp, l4, mask);
	if (counts)
		count(counts, 0, total);
	return true;
}

static __noinline bool act_xdp(void *ctx, __u32 l4, __u32 mask, struct counts *counts, __u32 total)
{
	return act(ctx, XDP, l4, mask, counts, total);
}

static __noinline bool act_tc(void *ctx, __u32 l4, __u32 mask, struct counts *counts, __u32 total)
{
	return act(ctx, TC, l4, mask, counts, total);
}

struct task {
	void *ctx;
	struct tcphdr *tcp; /* at XDP good to the end */
	struct counts *counts;
	__u32 l4, total, actors;
	enum backend backend;
	enum extent extent;
};

static __always_inline bool run_actor(const struct task *task, __u32 n)
{
	struct counts *counts = task->counts ? &task->counts[2 + n] : NULL;
	__u32 mask = settings.masks[n];

	if (n >= task->actors)
		return false;
	if (task->extent == CALLS && task->backend == XDP)
		return act_xdp(task->ctx, task->l4, mask, counts, task->total);
	if (task->extent == CALLS)
		return act_tc(task->ctx, task->l4, mask, counts, task->total);
	if (task->backend == TC)
		return act(task->ctx, TC, task->l4, mask, counts, task->total);
	toggle_xdp(task->tcp, mask);
	if (counts)
		count(counts, 0, task->total);
	return true;
}

/* Not in a loop: what is never run for so many actors is not compiled in. */
static __always_inline void run_actors(const struct task *task)
{
	(void)(run_actor(task, 0) && run_actor(task, 1) && run_actor(task, 2) && run_actor(task, 3) &&
	       run_actor(task, 4) && run_actor(task, 5) && run_actor(task, 6) && run_actor(task, 7) &&
	       run_actor(task, 8) && run_actor(task, 9) && run_actor(task, 10) && run_actor(task, 11) &&
	       run_actor(task, 12) && run_actor(task, 13) && run_actor(task, 14));
}

static __always_inline void run(void *ctx, enum backend backend, enum selector selector, __u32 actors,
				enum extent extent)
{
	struct iphdr *ip = ip_of(ctx, backend);
	struct counts *counts = NULL;
	struct tcphdr *tcp;
	struct task task;

	if (!ip || ip->protocol != IPPROTO_TCP)
		return;
	tcp = tcp_of(ctx, ip, backend);
	if (!tcp)
		return;
	if (extent != BARE) {
		if (!is_fit(ctx, ip, tcp, backend))
			return;
		counts = all_counts();
		if (!counts)
			return;
		count(counts, 0, bpf_ntohs(ip->tot_len));
		counts[1].packets++;
	}
	task = (struct task){
		.ctx = ctx,
		.tcp = tcp,
		.counts = counts,
		.l4 = L2 + ip->ihl * 4,
		.total = bpf_ntohs(ip->tot_len),
		.actors = actors,
		.backend = backend,
		.extent = extent,
	};
	if (!is_selected(ip, tcp, selector))
		return;
	if (extent != BARE) {
		counts[1].matches++;
		counts[1].bytes += task.total;
	}
	run_actors(&task);
}

static __always_inline void look_up(void *ctx, enum backend backend)
{
	struct iphdr *ip = ip_of(ctx, backend);
	struct counts *counts;
	struct tcphdr *tcp;

	if (!ip || (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP))
		return;
	tcp = (void *)((__u8 *)ip + ip->ihl * 4);
	if ((__u8 *)tcp + 8 > end_of(ctx, backend) || !is_selected(ip, tcp, IN_FLOWS))
		return;
	counts = all_counts();
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

#define CHAIN(name, selector, actors, extent) \
	PROGRAM(name, run(ctx, XDP, selector, actors, extent), run(ctx, TC, selector, actors, extent))

PROGRAM(empty, (void)ctx, (void)ctx)
PROGRAM(look_up, look_up(ctx, XDP), look_up(ctx, TC))
CHAIN(bare_flow_1, IS_FLOW, 1, BARE)
CHAIN(bare_flows_1, IN_FLOWS, 1, BARE)
CHAIN(bare_flows_7, IN_FLOWS, 7, BARE)
CHAIN(whole_flow_1, IS_FLOW, 1, WHOLE)
CHAIN(whole_flows_1, IN_FLOWS, 1, WHOLE)
CHAIN(whole_flows_3, IN_FLOWS, 3, WHOLE)
CHAIN(whole_flows_7, IN_FLOWS, 7, WHOLE)
CHAIN(whole_flows_15, IN_FLOWS, 15, WHOLE)
CHAIN(calls_flows_1, IN_FLOWS, 1, CALLS)
CHAIN(calls_flows_3, IN_FLOWS, 3, CALLS)
CHAIN(calls_flows_7, IN_FLOWS, 7, CALLS)
CHAIN(calls_flows_15, IN_FLOWS, 15, CALLS)

char _license[] SEC("license") = "Dual BSD/GPL";
