/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The stages that are joined: the same selectors and the same rewrite as in monolith.bpf.c, as a plugin's
 * author would write them. */
#include "flow.h"

#include <emptcp/actor.h>
#include <emptcp/selector.h>

EMPTCP_SELECTOR(in_flows, pkt, void, param)
{
	const struct iphdr *ip = emptcp_ip4(pkt);
	struct bench_flow flow;

	if (!ip)
		return false;
	flow = bench_flow_of(ip, emptcp_tcp(pkt));
	return bpf_map_lookup_elem(&bench_flows, &flow) != NULL;
}

EMPTCP_SELECTOR(is_flow, pkt, struct bench_flow, param)
{
	const struct iphdr *ip = emptcp_ip4(pkt);
	struct bench_flow flow;

	if (!ip)
		return false;
	flow = bench_flow_of(ip, emptcp_tcp(pkt));
	return bench_same_flow(&flow, param);
}

struct toggle_window {
	__u32 mask;
};

/* Two runs give the packet back, so each run of a repeated trial does the same work. */
EMPTCP_ACTOR(toggle_window, pkt, struct toggle_window, param)
{
	__be16 window = emptcp_tcp(pkt)->window ^ param->mask;

	if (!emptcp_may_change(pkt))
		return EMPTCP_NEXT;
	emptcp_store(pkt, __builtin_offsetof(struct tcphdr, window), &window, sizeof(window));
	return EMPTCP_NEXT;
}

struct packets {
	__u64 count;
};

/* Any actor with a state makes core look the packet's flow up. */
EMPTCP_ACTOR_STATE(count_packets, pkt, void, param, struct packets, state)
{
	state->count++;
	return EMPTCP_NEXT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
