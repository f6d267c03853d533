/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include <emptcp/actor.h>

enum event {
	ESTABLISHED = 1,
};

/* hooks.py reads it. Both by the ends of the event's key. */
struct connection_event {
	__u64 key[2]; /* as on the wire */
	__u8 version;
	__u8 opener; /* which end */
	__u8 reserved[6];
};

struct get_connect_state {
	__u8 told;
	__u8 reserved[7];
};

/* The third ACK of MPTCPv1 is the first packet that has the opener's key, that of version 0 repeats it. */
EMPTCP_ACTOR_STATE(get_connect, pkt, void, none, struct get_connect_state, state)
{
	const struct emptcp_flow *flow = pkt->flow;
	struct connection_event event = {};

	if (state->told || !flow || !flow->key[0] || !flow->key[1])
		return EMPTCP_NEXT;
	if (flow->inconsistent || !flow->version || !flow->opener)
		return emptcp_skip(pkt, EMPTCP_UNKNOWN_STATE);
	event.key[0] = flow->key[0];
	event.key[1] = flow->key[1];
	event.version = flow->version - 1;
	event.opener = flow->opener - 1;
	if (emptcp_event(pkt, ESTABLISHED, &event, sizeof(event)))
		state->told = 1;
	return EMPTCP_NEXT;
}

/* On the other hook: what passes there has the other end's key, which core notes for all. */
EMPTCP_COMPANION(get_connect_keys, pkt, struct get_connect_state, state)
{
}
