/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the hand-written programs and the fragments that they are compared with have in common. */
#ifndef EMPTCP_BENCH_FLOW_H
#define EMPTCP_BENCH_FLOW_H

#include <emptcp/bpf.h>
#include <emptcp/uapi.h>

/* A packet's 4-tuple, as it is on the wire. */
struct bench_flow {
	__be32 saddr;
	__be32 daddr;
	__be16 sport;
	__be16 dport;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct bench_flow);
	__type(value, __u32);
} bench_flows SEC(".maps");

static __always_inline struct bench_flow bench_flow_of(const struct iphdr *ip, const struct tcphdr *tcp)
{
	return (struct bench_flow){ip->saddr, ip->daddr, tcp->source, tcp->dest};
}

static __always_inline bool bench_same_flow(const struct bench_flow *one, const struct bench_flow *other)
{
	return one->saddr == other->saddr && one->daddr == other->daddr && one->sport == other->sport &&
	       one->dport == other->dport;
}

#endif
