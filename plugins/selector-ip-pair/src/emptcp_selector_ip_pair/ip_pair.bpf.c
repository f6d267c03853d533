/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include <emptcp/address.h>
#include <emptcp/selector.h>

struct ip_pair {
	struct emptcp_prefix saddr;
	struct emptcp_prefix daddr;
};

EMPTCP_SELECTOR(ip_pair, pkt, struct ip_pair, param)
{
	return emptcp_in_prefix(pkt, emptcp_source(pkt), &param->saddr) &&
	       emptcp_in_prefix(pkt, emptcp_target(pkt), &param->daddr);
}
