/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Core's own fragments, which the dispatcher runs before any stage: the first glance, the parser, and the
 * look-up in the flow table; and what it runs behind the last. They take the five arguments of every
 * fragment.
 */
#include <emptcp/checksum.h>
#include <emptcp/flow.h>
#include <emptcp/glance.h>
#include <emptcp/parse.h>

/* Runs before anything is looked up: of the arguments only `ctx` and `param` are there. Answers enum
 * emptcp_glanced, which the parser is given for a state. */
SEC("emptcp.xdp/core_glance")
int core_glance__xdp(struct xdp_md *ctx, struct emptcp_pkt *parsed __unused,
		     const struct emptcp_parse_config *param, void *state __unused,
		     struct emptcp_flow *flow __unused)
{
	return emptcp_glance(ctx, param, EMPTCP_XDP);
}

SEC("emptcp.tc/core_glance")
int core_glance__tc(struct __sk_buff *ctx, struct emptcp_pkt *parsed __unused,
		    const struct emptcp_parse_config *param, void *state __unused,
		    struct emptcp_flow *flow __unused)
{
	return emptcp_glance(ctx, param, EMPTCP_TC);
}

SEC("emptcp.xdp/core_parse")
int core_parse__xdp(struct xdp_md *ctx, struct emptcp_pkt *parsed, const struct emptcp_parse_config *param,
		    unsigned long glanced, struct emptcp_flow *flow __unused)
{
	return emptcp_parse_glanced(ctx, parsed, param, glanced, EMPTCP_XDP);
}

SEC("emptcp.tc/core_parse")
int core_parse__tc(struct __sk_buff *ctx, struct emptcp_pkt *parsed, const struct emptcp_parse_config *param,
		   unsigned long glanced, struct emptcp_flow *flow __unused)
{
	return emptcp_parse_glanced(ctx, parsed, param, glanced, EMPTCP_TC);
}

/* These two answer a pointer: the entry, or NULL. */
SEC("emptcp.xdp/core_flow")
struct emptcp_flow_entry *core_flow__xdp(struct xdp_md *ctx __unused, struct emptcp_pkt *parsed,
					 const struct emptcp_parse_config *param __unused,
					 void *state __unused, struct emptcp_flow *flow __unused)
{
	return emptcp_find_flow(parsed);
}

SEC("emptcp.tc/core_flow")
struct emptcp_flow_entry *core_flow__tc(struct __sk_buff *ctx __unused, struct emptcp_pkt *parsed,
					const struct emptcp_parse_config *param __unused,
					void *state __unused, struct emptcp_flow *flow __unused)
{
	return emptcp_find_flow(parsed);
}

SEC("emptcp.xdp/core_finish")
int core_finish__xdp(struct xdp_md *ctx, struct emptcp_pkt *parsed,
		     const struct emptcp_parse_config *param __unused, void *state __unused,
		     struct emptcp_flow *flow __unused)
{
	emptcp_finish(&(struct emptcp_handle){.ctx = ctx, .parsed = parsed, .backend = EMPTCP_XDP});
	return 0;
}

SEC("emptcp.tc/core_finish")
int core_finish__tc(struct __sk_buff *ctx, struct emptcp_pkt *parsed,
		    const struct emptcp_parse_config *param __unused, void *state __unused,
		    struct emptcp_flow *flow __unused)
{
	emptcp_finish(&(struct emptcp_handle){.ctx = ctx, .parsed = parsed, .backend = EMPTCP_TC});
	return 0;
}
