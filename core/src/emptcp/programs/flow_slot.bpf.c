/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Write one plugin's slot of a flow's entry, in place. Only a program can do that: a write from user space
 * replaces the whole entry, and with it what other CPUs counted meanwhile. It is run on an order in a
 * packet's place (BPF_PROG_TEST_RUN), and answers whether the entry is there.
 */
#include <emptcp/uapi.h>
#include <emptcp/bpf.h>
#include <emptcp/flow.h>

#define WORDS (sizeof(((struct emptcp_flow_entry *)0)->slots) / sizeof(__u64))

struct order {
	__u32 first; /* of the entry's words, behind its head */
	__u32 count;
	struct emptcp_key key;
	__u32 reserved;
	__u64 word[WORDS];
};

SEC("xdp")
int write_slot(struct xdp_md *ctx)
{
	const struct order *order = (const void *)(long)ctx->data;
	struct emptcp_flow_entry *entry;
	volatile __u64 *slots;
	__u32 i, place;

	if ((const void *)(order + 1) > (const void *)(long)ctx->data_end)
		return 0;
	entry = bpf_map_lookup_elem(&emptcp_flows, &order->key);
	if (!entry)
		return 0;
	/* Whole words: a program that reads the slot meanwhile sees a field as it was or as it is. */
	slots = (volatile __u64 *)entry->slots;
	for (i = 0; i < WORDS; i++) {
		if (i >= order->count)
			break;
		place = order->first + i;
		if (place >= WORDS)
			break;
		slots[place] = order->word[i];
	}
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
