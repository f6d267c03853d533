/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One fragment per changing function, as actors would have them, and what a forbidden write does to a
 * program. */
#include <emptcp/actor.h>
#include <emptcp/selector.h>

struct bytes {
	__u32 bytes;
};

struct counter {
	__u64 seen;
};

EMPTCP_SELECTOR(has_data, pkt, void, param)
{
	return pkt->parsed->payload_len;
}

EMPTCP_ACTOR(insert, pkt, void, param)
{
	const __u8 option[] = {EMPTCP_KIND_MPTCP, 3, EMPTCP_MP_PRIO << 4 | EMPTCP_PRIO_BACKUP};

	if (!emptcp_has(pkt, EMPTCP_MP_PRIO))
		emptcp_insert_option(pkt, option, sizeof(option));
	return EMPTCP_NEXT;
}

EMPTCP_ACTOR(remove, pkt, void, param)
{
	emptcp_remove_option(pkt, EMPTCP_ADD_ADDR, EMPTCP_SAFE);
	return EMPTCP_NEXT;
}

EMPTCP_ACTOR(rewrite, pkt, struct bytes, param)
{
	emptcp_rewrite(pkt, pkt->parsed->l4 + 4, &param->bytes, sizeof(param->bytes));
	return EMPTCP_NEXT;
}

EMPTCP_ACTOR(cap_window, pkt, struct bytes, param)
{
	const struct tcphdr *tcp = emptcp_tcp(pkt);

	if (!tcp->syn)
		emptcp_cap_window(pkt, tcp, param->bytes);
	return EMPTCP_NEXT;
}

EMPTCP_ACTOR_STATE(tell, pkt, void, param, struct counter, state)
{
	struct emptcp_dss dss;

	state->seen++;
	if (emptcp_read_dss(pkt, &dss))
		emptcp_event(pkt, 7, &dss, sizeof(dss));
	return EMPTCP_NEXT;
}

EMPTCP_COMPANION(watch, pkt, struct counter, state)
{
	state->seen++;
}

/* What no fragment may do at TC. */
SEC("tc")
int written_tc(struct __sk_buff *ctx)
{
	__u8 *data = emptcp_data(ctx, EMPTCP_TC);

	if (data + 1 > emptcp_data_end(ctx, EMPTCP_TC))
		return TC_ACT_OK;
	*data = 0;
	return TC_ACT_OK;
}

SEC("tc")
int unwritten_tc(struct __sk_buff *ctx)
{
	__u8 *data = emptcp_data(ctx, EMPTCP_TC);

	if (data + 1 > emptcp_data_end(ctx, EMPTCP_TC))
		return TC_ACT_OK;
	return *data;
}
