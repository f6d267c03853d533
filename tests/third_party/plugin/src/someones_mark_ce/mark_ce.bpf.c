/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include <emptcp/actor.h>

struct mark_ce {
	__u32 every;
};

struct marked {
	__u64 packets; /* whose sender understands ECN */
	__u64 marked;
};

EMPTCP_ACTOR_STATE(mark_ce, pkt, struct mark_ce, param, struct marked, state)
{
	const struct iphdr *ip = emptcp_ip4(pkt);

	if (!ip)
		return emptcp_skip(pkt, EMPTCP_REFUSED);
	if (!(ip->tos & 3))
		return EMPTCP_NEXT;
	if (++state->packets % (param->every | !param->every))
		return EMPTCP_NEXT;
	if (emptcp_mark_ce(pkt) == EMPTCP_ECN_MARKED)
		state->marked++;
	return EMPTCP_NEXT;
}
