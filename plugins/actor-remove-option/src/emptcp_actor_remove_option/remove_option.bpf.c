/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include <emptcp/actor.h>
#include <emptcp/kind.h>

struct remove_option {
	__u32 option; /* a bit by MPTCP subtype, 0: by kind */
	__u8 kind;
	__u8 unsafe;
	__u8 reserved[2];
};

static __always_inline __u32 subtype_of(__u32 bits)
{
	__u32 subtype = 0, i;

#pragma clang loop unroll(full)
	for (i = 0; i <= EMPTCP_MP_TCPRST; i++)
		subtype += bits >> i > 1;
	return subtype;
}

/*
 * Linux takes an ACK for one of a new subflow by a DSS that acknowledges, MP_CAPABLE or MP_JOIN, or an
 * ADD_ADDR. Without any it goes back to plain TCP, or resets the subflow (check_fully_established() in
 * net/mptcp/options.c). So one of the first three must be left, whatever goes.
 */
static __always_inline bool is_needed(const struct emptcp_handle *pkt, __u32 subtype)
{
	const struct emptcp_dss_head *dss = EMPTCP_OPTION(pkt, EMPTCP_DSS, struct emptcp_dss_head);
	__u32 left = pkt->parsed->subtypes & ~(1 << subtype);

	if (pkt->parsed->tcp_flags & (EMPTCP_SYN | EMPTCP_RST))
		return false;
	if (left & (1 << EMPTCP_MP_CAPABLE | 1 << EMPTCP_MP_JOIN))
		return false;
	return !(left & 1 << EMPTCP_DSS && dss && dss->flags & EMPTCP_DSS_ACK);
}

EMPTCP_ACTOR(remove_option, pkt, struct remove_option, param)
{
	__u32 subtype = subtype_of(param->option), place;

	if (!param->option) {
		place = emptcp_find_kind(pkt, param->kind, EMPTCP_ANY_EXID);
		if (place < EMPTCP_NOWHERE)
			emptcp_remove_kind(pkt, place, param->unsafe);
		return EMPTCP_NEXT;
	}
	if (!emptcp_has(pkt, subtype))
		return EMPTCP_NEXT;
	if (!param->unsafe && is_needed(pkt, subtype))
		return emptcp_skip(pkt, EMPTCP_UNSAFE);
	emptcp_remove_option(pkt, subtype, param->unsafe);
	return EMPTCP_NEXT;
}
