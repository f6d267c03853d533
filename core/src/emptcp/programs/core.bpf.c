/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Core's own fragments: what the dispatcher runs before any stage, which is the parser and the look-up in the
 * flow table, and what it runs behind the last. Each is compiled once per back-end, and is given of its
 * arguments those that it works with.
 */
#include <emptcp/finish.h>
#include <emptcp/flow.h>
#include <emptcp/parse.h>

/* The packet, parsed: emptcp_begin(). */
SEC("emptcp.xdp/core_begin")
struct emptcp_pkt *core_begin__xdp(struct xdp_md *ctx, __u32 how, __u32 netns)
{
	return emptcp_begin(ctx, how, netns, EMPTCP_XDP);
}

SEC("emptcp.tc/core_begin")
struct emptcp_pkt *core_begin__tc(struct __sk_buff *ctx, __u32 how, __u32 netns)
{
	return emptcp_begin(ctx, how, netns, EMPTCP_TC);
}

/* The same where no stage asks for more than the headers, behind Ethernet: what is known here the compiler
 * makes less of than the verifier does. */
#define LEAN (sizeof(struct ethhdr) << 16 | EMPTCP_NEED_TCP)

SEC("emptcp.xdp/core_begin_lean")
struct emptcp_pkt *core_begin_lean__xdp(struct xdp_md *ctx)
{
	return emptcp_begin(ctx, LEAN, 0, EMPTCP_XDP);
}

SEC("emptcp.tc/core_begin_lean")
struct emptcp_pkt *core_begin_lean__tc(struct __sk_buff *ctx)
{
	return emptcp_begin(ctx, LEAN, 0, EMPTCP_TC);
}

#define CORE_FUNCTION(RESULT, name, place, CTX, number, answer)                                              \
	SEC("emptcp." #place "/" #name)                                                                      \
	RESULT name##__##place(CTX *ctx __unused, struct emptcp_pkt *parsed __unused)                        \
	{                                                                                                    \
		const struct emptcp_handle pkt __unused = {.ctx = ctx, .parsed = parsed, .backend = number}; \
                                                                                                             \
		return answer;                                                                               \
	}

#define CORE_FRAGMENT(RESULT, name, answer)                                 \
	CORE_FUNCTION(RESULT, name, xdp, struct xdp_md, EMPTCP_XDP, answer) \
	CORE_FUNCTION(RESULT, name, tc, struct __sk_buff, EMPTCP_TC, answer)

/* The entry, or NULL. */
CORE_FRAGMENT(struct emptcp_flow_entry *, core_flow, emptcp_find_flow(parsed))
CORE_FRAGMENT(int, core_finish, (emptcp_finish(&pkt), 0))
/* What stages that were compiled with older headers are put between. */
CORE_FRAGMENT(int, core_put_header, (emptcp_put_header(&pkt), 0))
CORE_FRAGMENT(int, core_take_header, (emptcp_take_header(&pkt), 0))
