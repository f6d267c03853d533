/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Core's flow table: one entry per subflow, for both directions and for all plugins, looked up once per
 * packet.
 */
#ifndef EMPTCP_FLOW_H
#define EMPTCP_FLOW_H

#include <emptcp/abi.h>
#include <emptcp/bpf.h>
#include <emptcp/option.h>

/* Subflows remembered; the least recently used one gives way. 600 bytes each. */
#define EMPTCP_FLOWS 16384

struct emptcp_flow_entry {
	struct emptcp_flow head;
	__u8 slots[448]; /* the plugins' states */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, EMPTCP_FLOWS);
	__type(key, struct emptcp_key);
	__type(value, struct emptcp_flow_entry);
} emptcp_flows SEC(".maps");

/* Too large for the stack. */
static const volatile struct emptcp_flow_entry emptcp_new_flow;

static __always_inline struct emptcp_flow_entry *emptcp_open_flow(struct emptcp_pkt *parsed, __u64 flags)
{
	struct emptcp_flow_entry *entry;

	bpf_map_update_elem(&emptcp_flows, &parsed->key, (const void *)&emptcp_new_flow, flags);
	entry = bpf_map_lookup_elem(&emptcp_flows, &parsed->key);
	if (entry && !entry->head.since)
		entry->head.since = bpf_ktime_get_ns();
	return entry;
}

/* RFC 7323: a SYN without the option scales by 0, and 14 is the most. */
static __always_inline __u8 emptcp_flow_scale(const struct emptcp_pkt *parsed)
{
	__u32 place = parsed->window_scale, scale;

	if (!place)
		return 1;
	scale = parsed->block[(place - EMPTCP_TCP_HEADER + 2) & 63];
	return scale > 14 ? 15 : scale + 1;
}

/* What a SYN or SYN/ACK tells once. A SYN/ACK without window scaling takes the SYN's away. */
static __always_inline void emptcp_flow_syn(const struct emptcp_pkt *parsed, struct emptcp_flow *flow)
{
	__u32 direction = parsed->direction & 1;
	bool answer = parsed->tcp_flags & EMPTCP_ACK;

	flow->opener = (answer ? 1 - direction : direction) + 1;
	flow->wscale[direction] = emptcp_flow_scale(parsed);
	if (answer && !parsed->window_scale)
		flow->wscale[1 - direction] = 1;
}

static __always_inline void emptcp_flow_key(struct emptcp_flow *flow, __u32 direction, __u64 key)
{
	__u64 before = direction ? flow->key[1] : flow->key[0];

	if (before && before != key)
		flow->inconsistent = 1;
	else if (direction)
		flow->key[1] = key;
	else
		flow->key[0] = key;
}

/* The keys of an MP_CAPABLE at `at` in the options: the sender's from 12 bytes on, both from 20 bytes on. */
static __always_inline void emptcp_flow_keys(const struct emptcp_pkt *parsed, struct emptcp_flow *flow,
					     __u32 at)
{
	__u32 direction = parsed->direction & 1, len = parsed->len[EMPTCP_MP_CAPABLE];

	if (len >= 12)
		emptcp_flow_key(flow, direction, *(const __u64 *)(parsed->block + ((at + 4) & 63)));
	if (len >= 20)
		emptcp_flow_key(flow, 1 - direction, *(const __u64 *)(parsed->block + ((at + 12) & 63)));
}

static __always_inline void emptcp_flow_mptcp(const struct emptcp_pkt *parsed, struct emptcp_flow *flow)
{
	__u32 capable = parsed->at[EMPTCP_MP_CAPABLE], join = parsed->at[EMPTCP_MP_JOIN];

	flow->known = 1;
	if (capable) {
		flow->version = (parsed->block[(capable - EMPTCP_TCP_HEADER + 2) & 63] & 0xf) + 1;
		emptcp_flow_keys(parsed, flow, capable - EMPTCP_TCP_HEADER);
	} else if (parsed->flags & EMPTCP_PKT_MPTCP_V0 && !flow->version)
		flow->version = 1;
	if (join && parsed->len[EMPTCP_MP_JOIN] == sizeof(struct emptcp_mp_join_syn))
		flow->token[parsed->direction & 1] =
			*(const __be32 *)(parsed->block + ((join - EMPTCP_TCP_HEADER + 4) & 63));
}

/*
 * The packet's entry, with its head up to date; NULL: none. Only a SYN or an MPTCP option makes one, and a
 * SYN without ACK begins anew: the 4-tuple is used again.
 */
static __always_inline struct emptcp_flow_entry *emptcp_find_flow(struct emptcp_pkt *parsed)
{
	__u32 flags = parsed->tcp_flags & (EMPTCP_SYN | EMPTCP_ACK | EMPTCP_FIN | EMPTCP_RST);
	struct emptcp_flow_entry *entry;

	if (flags == EMPTCP_SYN) {
		entry = emptcp_open_flow(parsed, BPF_ANY);
	} else {
		entry = bpf_map_lookup_elem(&emptcp_flows, &parsed->key);
		if (!entry && (flags & EMPTCP_SYN || parsed->subtypes))
			entry = emptcp_open_flow(parsed, BPF_NOEXIST);
	}
	if (!entry)
		return NULL;
	if (flags & EMPTCP_SYN)
		emptcp_flow_syn(parsed, &entry->head);
	if (parsed->subtypes)
		emptcp_flow_mptcp(parsed, &entry->head);
	return entry;
}

#endif
