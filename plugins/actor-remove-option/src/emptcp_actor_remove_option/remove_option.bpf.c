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

/* An established subflow's ACK without any MPTCP option makes Linux fall back to plain TCP. */
static __always_inline bool is_last(const struct emptcp_handle *pkt, __u32 subtype)
{
	return emptcp_is_pure_ack(pkt) && pkt->parsed->subtypes == 1 << subtype;
}

EMPTCP_ACTOR(remove_option, pkt, struct remove_option, param)
{
	__u32 subtype = subtype_of(param->option), place;

	if (!param->option) {
		place = emptcp_find_kind(pkt, param->kind, EMPTCP_ANY_EXID);
		if (place < EMPTCP_NOWHERE)
			emptcp_remove_kind(pkt, place);
		return EMPTCP_NEXT;
	}
	if (!emptcp_has(pkt, subtype))
		return EMPTCP_NEXT;
	if (!param->unsafe && is_last(pkt, subtype))
		return emptcp_skip(pkt, EMPTCP_UNSAFE);
	emptcp_remove_option(pkt, subtype, param->unsafe);
	return EMPTCP_NEXT;
}
