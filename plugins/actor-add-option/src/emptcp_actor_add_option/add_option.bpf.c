/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include <emptcp/actor.h>
#include <emptcp/kind.h>

struct add_option {
	__u32 value;
	__u16 exid;
	__u8 kind;
	__u8 size; /* bytes of the value */
	__u8 syn;
	__u8 reserved[3];
};

/* An option of its own for every packet that has room. A packet that has it keeps the one it has. */
EMPTCP_ACTOR(add_option, pkt, struct add_option, param)
{
	__u8 *option = emptcp_option_space(pkt);
	__u32 size = param->size > 4 ? 4 : param->size, i;

	if (pkt->parsed->tcp_flags & EMPTCP_SYN && !param->syn)
		return EMPTCP_NEXT;
	if (emptcp_find_kind(pkt, param->kind, param->exid) < EMPTCP_NOWHERE)
		return EMPTCP_NEXT;
	option[0] = param->kind;
	option[1] = 4 + size;
	option[2] = param->exid >> 8;
	option[3] = param->exid;
#pragma clang loop unroll(full)
	for (i = 0; i < 4; i++)
		if (i < size)
			option[4 + i] = param->value >> ((size - 1 - i) * 8 & 31);
	emptcp_insert_built(pkt, 4 + size, EMPTCP_SAFE);
	return EMPTCP_NEXT;
}
