/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include <emptcp/kind.h>
#include <emptcp/selector.h>

struct option {
	__u32 value;
	__u16 exid; /* 0: any */
	__u8 kind;
	__u8 size; /* bytes of the value, 0: any */
};

EMPTCP_SELECTOR(option, pkt, struct option, param)
{
	__u32 exid = param->exid ? param->exid : EMPTCP_ANY_EXID, before = param->exid ? 4 : 2;
	__u32 place = emptcp_find_kind(pkt, param->kind, exid), value = 0, i;

	if (place >= EMPTCP_NOWHERE)
		return false;
	if (!param->size)
		return true;
	if (emptcp_kind_byte(pkt, place, 1) < before + param->size)
		return false;
#pragma clang loop unroll(full)
	for (i = 0; i < 4; i++)
		if (i < param->size)
			value = value << 8 | emptcp_kind_byte(pkt, place, before + i);
	return value == param->value;
}
