/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include <emptcp/key.h>
#include <emptcp/selector.h>

struct subflow {
	struct emptcp_prefix saddr;
	struct emptcp_prefix daddr;
	__u16 sport; /* 0: any */
	__u16 dport;
};

static __always_inline bool end_matches(const struct emptcp_handle *pkt, __u32 end,
					const struct emptcp_prefix *prefix, __u16 port)
{
	return (!port || port == emptcp_port(pkt, end)) && emptcp_in_prefix(pkt, end, prefix);
}

EMPTCP_SELECTOR(subflow, pkt, struct subflow, param)
{
	return end_matches(pkt, emptcp_source(pkt), &param->saddr, param->sport) &&
	       end_matches(pkt, emptcp_target(pkt), &param->daddr, param->dport);
}

/* Core tells the ends in the order in which sets and maps have them: the lower one first. */
struct subflow_key {
	struct emptcp_endpoint end[2];
};

EMPTCP_KEY(subflow_key, pkt, struct subflow_key, key)
{
	emptcp_write_endpoint(pkt, 0, &key->end[0]);
	emptcp_write_endpoint(pkt, 1, &key->end[1]);
	return true;
}
