/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include <emptcp/address.h>
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
