/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include <emptcp/actor.h>

struct drop {
	__u8 unsafe;
};

/* A host whose first SYNs get lost stops trying MPTCP, for all connections and for an hour. */
EMPTCP_ACTOR(drop, pkt, struct drop, param)
{
	if (!param->unsafe && pkt->parsed->tcp_flags & EMPTCP_SYN && emptcp_has(pkt, EMPTCP_MP_CAPABLE))
		return emptcp_skip(pkt, EMPTCP_UNSAFE);
	return EMPTCP_DROP;
}
