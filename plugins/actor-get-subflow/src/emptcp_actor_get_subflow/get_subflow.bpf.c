/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Tells of a subflow once it is there: an MP_JOIN was sent, answered and confirmed. A flood of SYNs fills
 * nothing but the flow table, which forgets the oldest, and sends no event.
 */
#include <emptcp/actor.h>
#include <emptcp/address.h>
#include <emptcp/connection.h>

#define SECOND 1000000000ULL

enum event {
	SF_ESTABLISHED = 1,
	SF_CLOSED = 2,
};

/* hooks.py reads it. By the ends of the event's key. */
struct subflow_event {
	__u32 token[2]; /* by which each end knows the connection, host order; 0: unknown */
	__u8 id[2];	/* address IDs */
	__u8 backup[2]; /* 1: this end asked the other not to use the subflow */
	__u8 opener;	/* which end */
	__u8 reserved[3];
};

struct get_subflow_state {
	__u64 since; /* when it was confirmed */
	__u8 id[2];
	__u8 backup[2];
	__u8 seen; /* by end, bit 0 or 1: its MP_JOIN with an address ID */
	__u8 told; /* 1: that it is there, 2: that it is not any more */
	__u8 reserved[2];
};

/* The two forms with an address ID begin alike (RFC 8684, section 3.2). */
static __always_inline void note_join(const struct emptcp_handle *pkt, struct get_subflow_state *state)
{
	const struct emptcp_mp_join_syn *join = EMPTCP_OPTION(pkt, EMPTCP_MP_JOIN, struct emptcp_mp_join_syn);
	__u32 end = emptcp_source(pkt);

	if (!join || !(pkt->parsed->tcp_flags & EMPTCP_SYN))
		return;
	state->id[end] = join->address_id;
	state->backup[end] = join->head.subtype_flags & EMPTCP_JOIN_BACKUP;
	state->seen |= 1 << end;
}

static __always_inline bool send(const struct emptcp_handle *pkt, const struct get_subflow_state *state,
				 __u32 type)
{
	struct subflow_event event = {
		.token = {emptcp_connection(pkt, 0), emptcp_connection(pkt, 1)},
		.id = {state->id[0], state->id[1]},
		.backup = {state->backup[0], state->backup[1]},
		.opener = pkt->flow->opener == 2,
	};

	return emptcp_event(pkt, type, &event, sizeof(event));
}

/* Both tokens, or a second has passed: those of a connection that began before us stay unknown. */
static __always_inline bool is_tied(const struct emptcp_handle *pkt, struct get_subflow_state *state)
{
	__u64 now;

	if (emptcp_connection(pkt, 0) && emptcp_connection(pkt, 1))
		return true;
	now = emptcp_now();
	if (!state->since)
		state->since = now;
	return now - state->since > SECOND;
}

EMPTCP_ACTOR_STATE(get_subflow, pkt, void, none, struct get_subflow_state, state)
{
	__u32 flags = pkt->parsed->tcp_flags;
	bool ends = flags & (EMPTCP_RST | EMPTCP_FIN);

	if (!pkt->flow || state->seen != 3 || flags & EMPTCP_SYN || state->told == 2)
		return EMPTCP_NEXT;
	if (!state->told && (is_tied(pkt, state) || ends) && send(pkt, state, SF_ESTABLISHED))
		state->told = 1;
	if (state->told && ends && send(pkt, state, SF_CLOSED))
		state->told = 2;
	return EMPTCP_NEXT;
}

/* On both hooks: each end's MP_JOIN passes one of them. */
EMPTCP_COMPANION(get_subflow_joins, pkt, struct get_subflow_state, state)
{
	if (emptcp_has(pkt, EMPTCP_MP_JOIN))
		note_join(pkt, state);
}
