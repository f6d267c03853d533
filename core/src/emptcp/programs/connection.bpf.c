/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The companion that every stage has which reads "connection": it runs before the policies, on both hooks. */
#include <emptcp/actor.h>
#include <emptcp/connection.h>

enum event {
	KEYS = 1, /* the keys stand in the flow table; no bytes */
};

EMPTCP_COMPANION(core_connection, pkt, void, none)
{
	struct emptcp_flow *flow = pkt->flow;

	if (!flow || (flow->local_token[0] && flow->local_token[1]))
		return;
	if (flow->local_token[0] || flow->local_token[1] || flow->token[0] || flow->token[1])
		emptcp_connection_join(flow);
	else if (emptcp_connection_untold(flow) && emptcp_event(pkt, KEYS, "", 0))
		flow->told = 1;
}
