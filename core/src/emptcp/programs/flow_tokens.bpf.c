/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Write a connection's two tokens into a flow's entry and beside each other. As write_slot: a write from user
 * space would replace the whole entry.
 */
#include <emptcp/connection.h>
#include <emptcp/flow.h>
#include <emptcp/uapi.h>

struct order {
	struct emptcp_key key;
	__u32 token[2]; /* per end, network order */
};

SEC("xdp")
int write_tokens(struct xdp_md *ctx)
{
	const struct order *order = (const void *)(long)ctx->data;
	struct emptcp_flow_entry *entry;

	if ((const void *)(order + 1) > (const void *)(long)ctx->data_end)
		return 0;
	bpf_map_update_elem(&emptcp_connections, &order->token[0], &order->token[1], BPF_ANY);
	bpf_map_update_elem(&emptcp_connections, &order->token[1], &order->token[0], BPF_ANY);
	entry = bpf_map_lookup_elem(&emptcp_flows, &order->key);
	if (!entry)
		return 0;
	entry->head.local_token[0] = order->token[0];
	entry->head.local_token[1] = order->token[1];
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
