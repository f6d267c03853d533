/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which connection a subflow belongs to. Each end knows a connection by a token of its own, a hash of its key
 * (RFC 8684, section 3.1), and an MP_JOIN names the token of the end that it is sent to. Programs can't hash:
 * user space works the tokens out of the first subflow's keys and leaves them in the flow table, and each
 * one's counterpart in the table below, where a subflow that joins finds the one that its MP_JOIN does not
 * name. Until user space has answered the tokens are not known.
 *
 * The manifest says reads = ["connection"] and resident = true: it is `emptcp run` that works tokens out.
 */
#ifndef EMPTCP_CONNECTION_H
#define EMPTCP_CONNECTION_H

#include <emptcp/abi.h>
#include <emptcp/bpf.h>

/* Two entries per connection; the least recently used ones give way. */
#define EMPTCP_CONNECTION_TOKENS 32768

/* The token of one end -> the token of the other, both in network order. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, EMPTCP_CONNECTION_TOKENS);
	__type(key, __u32);
	__type(value, __u32);
} emptcp_connections SEC(".maps");

/* The token by which one end, an index into key.addr, knows the packet's connection, host order; 0: unknown.
 */
EMPTCP_PUBLIC __u32 emptcp_connection(const struct emptcp_handle *pkt, __u32 end)
{
	if (!pkt->flow)
		return 0;
	return bpf_ntohl(end & 1 ? pkt->flow->local_token[1] : pkt->flow->local_token[0]);
}

/* Take what an MP_JOIN named, and look up what it did not. */
static __always_inline void emptcp_connection_join(struct emptcp_flow *flow)
{
	__u32 first = flow->local_token[0], second = flow->local_token[1], *found;

	first = first ? first : flow->token[1];
	second = second ? second : flow->token[0];
	if (first) {
		found = bpf_map_lookup_elem(&emptcp_connections, &first);
		second = found && !second ? *found : second;
	} else {
		found = bpf_map_lookup_elem(&emptcp_connections, &second);
		first = found ? *found : first;
	}
	flow->local_token[0] = first;
	flow->local_token[1] = second;
}

/* Whether user space should be told of the keys: all are there, and it was not told. */
static __always_inline bool emptcp_connection_untold(const struct emptcp_flow *flow)
{
	return flow->key[0] && flow->key[1] && !flow->inconsistent && !flow->told;
}

#endif
