/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A selector: does this packet match? It has no side effects on the packet.
 *
 *	struct payload { __u32 at_least; };
 *
 *	EMPTCP_SELECTOR(payload, pkt, struct payload, param)
 *	{
 *		return pkt->parsed->payload_len >= param->at_least;
 *	}
 *
 * PARAM_T and STATE_T may be `void`. A parameter struct has no pointers and at most 256 bytes, a state at
 * most 192; it lives in the flow table, one per subflow and plugin, and begins as zero bytes.
 */
#ifndef EMPTCP_SELECTOR_H
#define EMPTCP_SELECTOR_H

#include <emptcp/event.h>
#include <emptcp/fragment.h>
#include <emptcp/option.h>
#include <emptcp/packet.h>

/* As EMPTCP_SELECTOR, with the plugin's state of the subflow in `state`. */
#define EMPTCP_SELECTOR_STATE(name, pkt, PARAM_T, param, STATE_T, state)                                 \
	EMPTCP_FRAGMENT(EMPTCP_KIND_SELECTOR, EMPTCP_TAKES(PARAM_T, 1) | EMPTCP_TAKES(STATE_T, 2), bool, \
			EMPTCP_ANSWER, name, pkt, PARAM_T, param, STATE_T, state)

/*
 * The body of a selector: answers whether the packet matches. One that lacks what it would need to tell
 * answers no and sets `pkt->parsed->reason` (EMPTCP_UNKNOWN_STATE, say), which is counted for its stage.
 */
#define EMPTCP_SELECTOR(name, pkt, PARAM_T, param) \
	EMPTCP_SELECTOR_STATE(name, pkt, PARAM_T, param, void, emptcp_no_state)

#endif
