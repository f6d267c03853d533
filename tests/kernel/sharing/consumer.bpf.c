/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Selects by the classes that another distribution gives: to the packet (scratch), and to its subflow (map).
 */
#include <emptcp/actor.h>
#include <emptcp/selector.h>

#include "classes.h"

/* The classifier's map: how many entries it has is its affair. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct emptcp_key);
	__type(value, struct traffic_class);
} known_classes SEC(".maps");

/* What the scratch held when `look` came by. */
struct looks {
	__u64 empty;
	__u64 marked;
	__u64 other;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct looks);
} seen SEC(".maps");

struct wanted {
	__u32 number;
};

EMPTCP_SELECTOR(of_class, pkt, struct wanted, param)
{
	const struct class_of_packet *mark = EMPTCP_SCRATCH(pkt, struct class_of_packet);

	return mark->known && mark->number == param->number;
}

EMPTCP_SELECTOR(in_class, pkt, struct wanted, param)
{
	struct emptcp_key key = pkt->parsed->key;
	const struct traffic_class *known = bpf_map_lookup_elem(&known_classes, &key);

	return known && known->number == param->number;
}

EMPTCP_ACTOR(look, pkt, struct wanted, param)
{
	const __u64 *scratch = emptcp_scratch(pkt);
	const struct class_of_packet *mark = EMPTCP_SCRATCH(pkt, struct class_of_packet);
	struct looks *found;
	__u32 zero = 0;

	found = bpf_map_lookup_elem(&seen, &zero);
	if (!found)
		return EMPTCP_NEXT;
	if (!scratch[0] && !scratch[1])
		__sync_fetch_and_add(&found->empty, 1);
	else if (mark->known && mark->number == param->number)
		__sync_fetch_and_add(&found->marked, 1);
	else
		__sync_fetch_and_add(&found->other, 1);
	return EMPTCP_NEXT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
