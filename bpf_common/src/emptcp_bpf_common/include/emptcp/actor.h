/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * An actor does something to a packet that matched, then answers an enum emptcp_verdict. A companion is a
 * second program that an actor needs on another hook: it sees every packet before the policies do and
 * answers nothing.
 *
 *	struct cap_window { __u32 bytes; };
 *
 *	EMPTCP_ACTOR(cap_window, pkt, struct cap_window, param)
 *	{
 *		const struct tcphdr *tcp = emptcp_tcp(pkt);
 *		if (tcp->syn)
 *			return EMPTCP_NEXT;
 *		emptcp_cap_window(pkt, tcp, param->bytes);
 *		return EMPTCP_NEXT;
 *	}
 *
 * PARAM_T and STATE_T may be `void`; their limits stand in <emptcp/selector.h>. A member `__u64 stage_id` of
 * PARAM_T is no parameter: core fills it with a number that the stage has on every hook and device.
 */
#ifndef EMPTCP_ACTOR_H
#define EMPTCP_ACTOR_H

#include <emptcp/change.h>
#include <emptcp/event.h>
#include <emptcp/fragment.h>
#include <emptcp/option.h>
#include <emptcp/packet.h>

/* As EMPTCP_ACTOR, with the plugin's state of the subflow in `state`. */
#define EMPTCP_ACTOR_STATE(name, pkt, PARAM_T, param, STATE_T, state)                                \
	EMPTCP_FRAGMENT(EMPTCP_KIND_ACTOR, EMPTCP_TAKES(PARAM_T, 1) | EMPTCP_TAKES(STATE_T, 2), int, \
			EMPTCP_ANSWER, name, pkt, PARAM_T, param, STATE_T, state)

/* The body of an actor: answers an enum emptcp_verdict. */
#define EMPTCP_ACTOR(name, pkt, PARAM_T, param) \
	EMPTCP_ACTOR_STATE(name, pkt, PARAM_T, param, void, emptcp_no_state)

/* The body of a companion: answers nothing. `state` is its plugin's, as in EMPTCP_ACTOR_STATE. */
#define EMPTCP_COMPANION(name, pkt, STATE_T, state)                                                         \
	EMPTCP_FRAGMENT(EMPTCP_KIND_COMPANION, EMPTCP_TAKES(STATE_T, 2), void, EMPTCP_NO_ANSWER, name, pkt, \
			void, emptcp_no_param, STATE_T, state)

/* Leave the packet as it is and say why: the stage's counter of `reason` goes up, the chain goes on. */
EMPTCP_PUBLIC int emptcp_skip(const struct emptcp_handle *pkt, enum emptcp_reason reason)
{
	pkt->parsed->reason = reason;
	return EMPTCP_NEXT;
}

/*
 * Go on in a named chain, given as a parameter of type `chain`, and don't come back to this one. 0 is no
 * chain: the next stage follows.
 */
EMPTCP_PUBLIC int emptcp_goto(const struct emptcp_handle *pkt, __u32 chain)
{
	if (!chain)
		return EMPTCP_NEXT;
	pkt->parsed->chain = chain;
	return EMPTCP_GOTO;
}

#endif
