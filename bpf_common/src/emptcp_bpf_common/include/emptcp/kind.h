/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * TCP options of any kind, such as experimental ones with an identifier of their own (RFC 6994). MPTCP's are
 * found by their subtype (<emptcp/option.h>).
 */
#ifndef EMPTCP_KIND_H
#define EMPTCP_KIND_H

#include <emptcp/change.h>
#include <emptcp/edit.h>

/* What emptcp_find_kind() answers when there is none: behind all options. */
#define EMPTCP_NOWHERE 64

/* No certain identifier: any option of the kind. */
#define EMPTCP_ANY_EXID 0x10000

/* Find the option that `argument` names: the kind in the low byte, the identifier above. */
__weak __noinline int emptcp_kind_search(void)
{
	struct emptcp_pkt *parsed = emptcp_parsed();
	__u32 kind, exid, i;

	if (!parsed)
		return EMPTCP_NOWHERE;
	emptcp_edit_scan();
	kind = parsed->argument & 0xff;
	exid = parsed->argument >> 8;
#pragma clang loop unroll(disable)
	for (i = 0; i < EMPTCP_TCP_OPTIONS_MAX / 2 && i < parsed->places_len; i++) {
		__u32 place = parsed->places[i & 31];
		__u32 id = emptcp_walk_byte(parsed, place, 2) << 8 | emptcp_walk_byte(parsed, place, 3);
		__u32 other = emptcp_walk_byte(parsed, place, 0) ^ kind;

		if (exid < EMPTCP_ANY_EXID)
			other |= (id ^ exid) | emptcp_below(emptcp_walk_byte(parsed, place, 1), 4);
		if (!other)
			return place;
	}
	return EMPTCP_NOWHERE;
}

/*
 * Where the first option of `kind` begins, from the first byte of the options on, EMPTCP_NOWHERE without one.
 * `exid`: and with this identifier behind its length, or EMPTCP_ANY_EXID.
 */
EMPTCP_PUBLIC __u32 emptcp_find_kind(const struct emptcp_handle *pkt, __u8 kind, __u32 exid)
{
	pkt->parsed->argument = kind | exid << 8;
	return emptcp_kind_search();
}

/* Byte `n` of the option at `place`, its kind and length counted. */
EMPTCP_PUBLIC __u32 emptcp_kind_byte(const struct emptcp_handle *pkt, __u32 place, __u32 n)
{
	return emptcp_walk_byte(pkt->parsed, place, n);
}

/*
 * Turn the option that begins at `place` into NOPs. Refused: EMPTCP_NO_OPTION where none begins,
 * EMPTCP_UNSAFE for a DSS unless `unsafe`.
 */
EMPTCP_PUBLIC bool emptcp_remove_kind(const struct emptcp_handle *pkt, __u32 place, bool unsafe)
{
	struct emptcp_pkt *parsed = pkt->parsed;
	__u32 len = emptcp_walk_byte(parsed, place, 1);

	if (!emptcp_may_change(pkt))
		return false;
	emptcp_edit_scan();
	if (place >= EMPTCP_NOWHERE || !emptcp_bit(parsed->heads, place))
		return emptcp_refuse(pkt, EMPTCP_NO_OPTION);
	if (!unsafe && len > 2 && emptcp_walk_byte(parsed, place, 0) == EMPTCP_KIND_MPTCP &&
	    emptcp_walk_byte(parsed, place, 2) >> 4 == EMPTCP_DSS)
		return emptcp_refuse(pkt, EMPTCP_UNSAFE);
	parsed->built_len = emptcp_options_total(parsed);
	emptcp_put_nops(parsed, parsed->block, ((1ULL << (len & 63)) - 1) << place);
	return emptcp_commit(pkt);
}

#endif
