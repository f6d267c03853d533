/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Gives each packet a class, in the packet's scratch, and each subflow the class of its last packet, in a
 * map. */
#include <emptcp/actor.h>

#include "classes.h"

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 64);
	__type(key, struct emptcp_key);
	__type(value, struct traffic_class);
} classes SEC(".maps");

struct classify {
	__u32 number;
};

EMPTCP_ACTOR(classify, pkt, struct classify, param)
{
	struct traffic_class fresh = {.number = param->number, .packets = 1}, *known;
	struct class_of_packet *mark = EMPTCP_SCRATCH(pkt, struct class_of_packet);
	struct emptcp_key key = pkt->parsed->key;

	mark->known = 1;
	mark->number = param->number;
	known = bpf_map_lookup_elem(&classes, &key);
	if (!known) {
		bpf_map_update_elem(&classes, &key, &fresh, 0);
		return EMPTCP_NEXT;
	}
	known->number = param->number;
	__sync_fetch_and_add(&known->packets, 1);
	return EMPTCP_NEXT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
