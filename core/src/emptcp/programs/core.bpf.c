/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Core's own fragments: what the dispatcher runs before any stage, which is the first glance, the parser and
 * the look-up in the flow table, and what it runs behind the last. Each is compiled once per back-end, and is
 * given of its arguments those that it works with.
 */
#include <emptcp/checksum.h>
#include <emptcp/flow.h>
#include <emptcp/glance.h>
#include <emptcp/parse.h>

#define CORE_FUNCTION(RESULT, name, place, CTX, number, answer)                                              \
	SEC("emptcp." #place "/" #name)                                                                      \
	RESULT name##__##place(CTX *ctx __unused, struct emptcp_pkt *parsed __unused,                        \
			       const struct emptcp_parse_config *param __unused,                             \
			       unsigned long glanced __unused)                                               \
	{                                                                                                    \
		const struct emptcp_handle pkt __unused = {.ctx = ctx, .parsed = parsed, .backend = number}; \
                                                                                                             \
		return answer;                                                                               \
	}

#define CORE_FRAGMENT(RESULT, name, answer)                                 \
	CORE_FUNCTION(RESULT, name, xdp, struct xdp_md, EMPTCP_XDP, answer) \
	CORE_FUNCTION(RESULT, name, tc, struct __sk_buff, EMPTCP_TC, answer)

/* Runs before anything is looked up, and answers enum emptcp_glanced, which the parser is given. */
CORE_FRAGMENT(int, core_glance, emptcp_glance(ctx, param, pkt.backend))
CORE_FRAGMENT(int, core_parse, emptcp_parse_glanced(ctx, parsed, param, glanced, pkt.backend))
/* The entry, or NULL. */
CORE_FRAGMENT(struct emptcp_flow_entry *, core_flow, emptcp_find_flow(parsed))
CORE_FRAGMENT(int, core_finish, (emptcp_finish(&pkt), 0))
