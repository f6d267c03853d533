/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Parse, and send the decoded DSS as an event. */
#include <emptcp/actor.h>
#include <emptcp/parse.h>

static __always_inline int tell(void *ctx, int backend)
{
	const struct emptcp_parse_config config = {.needs = EMPTCP_NEED_OPTIONS | EMPTCP_NEED_KEY, .l2 = 14};
	struct emptcp_pkt *parsed = emptcp_parsed();
	const struct emptcp_handle pkt = {
		.ctx = ctx, .parsed = parsed, .backend = backend, .name = "tell" EMPTCP_ZEROS};
	struct emptcp_dss dss;

	if (!parsed || emptcp_parse(ctx, parsed, &config, backend) != EMPTCP_PARSE_TCP)
		return 0;
	return emptcp_read_dss(&pkt, &dss) && emptcp_event(&pkt, 7, &dss, sizeof(dss));
}

SEC("xdp")
int tell_xdp(struct xdp_md *ctx)
{
	return tell(ctx, EMPTCP_XDP);
}

SEC("tc")
int tell_tc(struct __sk_buff *ctx)
{
	return tell(ctx, EMPTCP_TC);
}
