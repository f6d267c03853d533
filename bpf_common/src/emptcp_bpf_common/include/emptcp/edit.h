/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Edits of the TCP options, worked out on the parsed packet's copy: `block` is what is there, `built` what is
 * to be. Nothing here touches the packet; <emptcp/change.h> writes `built` into it when all is decided.
 *
 * Each edit goes through the block byte by byte with its state in the map value, for the verifier's sake (see
 * <emptcp/walk.h>): forty turns with few ways through, whatever the options' lengths.
 */
#ifndef EMPTCP_EDIT_H
#define EMPTCP_EDIT_H

#include <emptcp/abi.h>
#include <emptcp/bpf.h>
#include <emptcp/option.h>
#include <emptcp/walk.h>

/* emptcp_pkt.argument of an edit: a number in the low byte, and this bit for edits of a DSS. */
#define EMPTCP_EDIT_UNSAFE 0x100

/* What a byte of the block is. */
enum emptcp_role {
	EMPTCP_ROLE_NOP,  /* free */
	EMPTCP_ROLE_REST, /* EOL and what follows, or the first broken option and what follows */
	EMPTCP_ROLE_HEAD, /* an option's kind */
	EMPTCP_ROLE_BODY, /* the rest of it */
};

/* emptcp_pkt.left behind the end of the options */
#define EMPTCP_ENDED 0xffff

/* The role of byte `i` of `total`; called for each in turn, `left` being 0 at first. */
static __always_inline enum emptcp_role emptcp_role(struct emptcp_pkt *parsed, __u32 i, __u32 total)
{
	__u32 left = READ_ONCE(parsed->left), kind = parsed->block[i & 63], len;

	if (left == EMPTCP_ENDED)
		return EMPTCP_ROLE_REST;
	if (left) {
		WRITE_ONCE(parsed->left, left - 1);
		return EMPTCP_ROLE_BODY;
	}
	if (kind == EMPTCP_KIND_NOP)
		return EMPTCP_ROLE_NOP;
	len = parsed->block[(i + 1) & 63];
	if (kind == EMPTCP_KIND_EOL || len < 2 || i + len > total) {
		if (kind != EMPTCP_KIND_EOL)
			parsed->broken = EMPTCP_BAD_OPTION;
		WRITE_ONCE(parsed->left, EMPTCP_ENDED);
		return EMPTCP_ROLE_REST;
	}
	WRITE_ONCE(parsed->left, len - 1);
	return EMPTCP_ROLE_HEAD;
}

static __always_inline __u32 emptcp_options_total(const struct emptcp_pkt *parsed)
{
	__u32 total = parsed->payload - parsed->l4 - EMPTCP_TCP_HEADER;

	return total > EMPTCP_TCP_OPTIONS_MAX ? 0 : total;
}

static __always_inline void emptcp_copy_block(__u8 *to, const __u8 *from)
{
	__u32 i;

	for (i = 0; i < EMPTCP_TCP_OPTIONS_MAX / 8; i++)
		((__u64 *)to)[i] = ((const __u64 *)from)[i];
}

static __always_inline int emptcp_edit_refuse(struct emptcp_pkt *parsed, enum emptcp_reason reason)
{
	parsed->reason = reason;
	return 0;
}

static __always_inline bool emptcp_is_dss(const __u8 *option)
{
	return option[0] == EMPTCP_KIND_MPTCP && option[2] >> 4 == EMPTCP_DSS;
}

/*
 * Remove: NOPs over every option of subtype `argument`. If it is there once, over the valid one only. The
 * answer is 1, or 0 with the reason in parsed->reason, as of all edits.
 */
static __always_inline bool emptcp_is_removed(const struct emptcp_pkt *parsed, __u32 i, __u32 subtype)
{
	if (!(parsed->repeated >> subtype & 1))
		return parsed->at[subtype] == EMPTCP_TCP_HEADER + i;
	return parsed->block[i & 63] == EMPTCP_KIND_MPTCP && parsed->block[(i + 1) & 63] > 2 &&
	       parsed->block[(i + 2) & 63] >> 4 == subtype;
}

__weak __noinline int emptcp_edit_remove(void)
{
	struct emptcp_pkt *parsed = emptcp_parsed();
	__u32 total, subtype, i;

	if (!parsed)
		return 0;
	subtype = parsed->argument & (EMPTCP_SUBTYPES - 1);
	if (!(parsed->subtypes >> subtype & 1))
		return emptcp_edit_refuse(parsed, EMPTCP_NO_OPTION);
	if (subtype == EMPTCP_DSS && !(parsed->argument & EMPTCP_EDIT_UNSAFE))
		return emptcp_edit_refuse(parsed, EMPTCP_UNSAFE);
	total = emptcp_options_total(parsed);
	parsed->built_len = total;
	parsed->left = 0;
	parsed->run = 0;
#pragma clang loop unroll(disable)
	for (i = 0; i < EMPTCP_TCP_OPTIONS_MAX; i++) {
		enum emptcp_role role;

		if (i >= total)
			break;
		role = emptcp_role(parsed, i, total);
		/* `run`: whether the option that this byte belongs to goes. */
		if (role == EMPTCP_ROLE_HEAD)
			WRITE_ONCE(parsed->run, emptcp_is_removed(parsed, i, subtype));
		if (role >= EMPTCP_ROLE_HEAD && READ_ONCE(parsed->run))
			parsed->built[i] = EMPTCP_KIND_NOP;
		else
			parsed->built[i] = parsed->block[i];
	}
	return 1;
}

/*
 * Rewrite: `built_len` bytes from `cursor` on become those of `option`. Kinds, lengths, subtypes and NOPs
 * must stay what they are, so that no option begins or ends elsewhere than before.
 */
static __always_inline bool emptcp_is_fixed(const struct emptcp_pkt *parsed, __u32 i, __u32 start,
					    __u32 change)
{
	if (i < start + 2)
		return change;
	return i == start + 2 && parsed->block[start & 63] == EMPTCP_KIND_MPTCP && change & 0xf0;
}

__weak __noinline int emptcp_edit_rewrite(void)
{
	struct emptcp_pkt *parsed = emptcp_parsed();
	__u32 total, from, len, i;
	bool unsafe;

	if (!parsed)
		return 0;
	total = emptcp_options_total(parsed);
	from = parsed->cursor;
	len = parsed->built_len;
	unsafe = parsed->argument & EMPTCP_EDIT_UNSAFE;
	parsed->built_len = total;
	parsed->left = 0;
	parsed->out = 0;
#pragma clang loop unroll(disable)
	for (i = 0; i < EMPTCP_TCP_OPTIONS_MAX; i++) {
		__u32 role, now = parsed->block[i], then = now, start;

		if (i >= total)
			break;
		role = emptcp_role(parsed, i, total);
		if (role == EMPTCP_ROLE_HEAD)
			WRITE_ONCE(parsed->out, i);
		if (i >= from && i - from < len)
			then = parsed->option[(i - from) & 31];
		parsed->built[i] = then;
		if (now == then)
			continue;
		start = READ_ONCE(parsed->out) & 63;
		if (role < EMPTCP_ROLE_HEAD || emptcp_is_fixed(parsed, i, start, now ^ then))
			return emptcp_edit_refuse(parsed, EMPTCP_BAD_OPTION);
		if (emptcp_is_dss(parsed->block + start) && !unsafe)
			return emptcp_edit_refuse(parsed, EMPTCP_UNSAFE);
	}
	return 1;
}

/* Insert, first half: the options without NOPs in `built`, `out` bytes; `fit` if `len` NOPs stand in a row.
 */
static __always_inline bool emptcp_gather(struct emptcp_pkt *parsed, __u32 total, __u32 len)
{
	__u32 i;

	parsed->left = parsed->out = parsed->run = parsed->fit = parsed->broken = 0;
#pragma clang loop unroll(disable)
	for (i = 0; i < EMPTCP_TCP_OPTIONS_MAX; i++) {
		__u32 role, run, out;

		if (i >= total)
			break;
		role = emptcp_role(parsed, i, total);
		if (role == EMPTCP_ROLE_NOP) {
			run = READ_ONCE(parsed->run) + 1;
			WRITE_ONCE(parsed->run, run);
			if (run == len && !READ_ONCE(parsed->fit))
				WRITE_ONCE(parsed->fit, i + 2 - len);
			continue;
		}
		if (role == EMPTCP_ROLE_REST) {
			/* EOL and zeros behind are free bytes. Anything else behind EOL is not ours to move.
			 */
			if (parsed->block[i])
				WRITE_ONCE(parsed->broken, EMPTCP_BAD_OPTION);
			continue;
		}
		WRITE_ONCE(parsed->run, 0);
		out = READ_ONCE(parsed->out);
		parsed->built[out & 63] = parsed->block[i];
		WRITE_ONCE(parsed->out, out + 1);
	}
	return !parsed->broken;
}

/* The option at `at`; behind it NOPs up to `total`. */
static __always_inline void emptcp_place(struct emptcp_pkt *parsed, __u32 at, __u32 len, __u32 total,
					 bool fill)
{
	__u32 i;

#pragma clang loop unroll(disable)
	for (i = 0; i < EMPTCP_TCP_OPTIONS_MAX; i++) {
		__u32 to = at + i;

		if (i < len)
			parsed->built[to & 63] = parsed->option[i];
		else if (fill && to < total)
			parsed->built[to & 63] = EMPTCP_KIND_NOP;
		else
			break;
	}
}

/* Why a packet may not get longer, 0: it may. */
static __always_inline enum emptcp_reason emptcp_no_growth(const struct emptcp_pkt *parsed)
{
	if (parsed->flags & EMPTCP_PKT_GSO)
		return EMPTCP_GSO;
	if (!(parsed->flags & EMPTCP_PKT_PURE_ACK))
		return EMPTCP_NOT_PURE_ACK;
	return parsed->ip_end == parsed->payload ? EMPTCP_OK : EMPTCP_LENGTH_UNKNOWN;
}

static __always_inline enum emptcp_reason emptcp_no_insertion(const struct emptcp_pkt *parsed, __u32 len)
{
	if (parsed->tcp_flags & (EMPTCP_FIN | EMPTCP_RST))
		return EMPTCP_CLOSING;
	if (len < 2 || len > EMPTCP_TCP_OPTIONS_MAX || parsed->option[0] <= EMPTCP_KIND_NOP ||
	    parsed->option[1] != len)
		return EMPTCP_BAD_OPTION;
	if (len > 2 && emptcp_is_dss(parsed->option) && !(parsed->argument & EMPTCP_EDIT_UNSAFE))
		return EMPTCP_UNSAFE;
	return EMPTCP_OK;
}

/*
 * Insert the `argument` bytes of `option`: over NOPs that stand in a row; else behind the other options,
 * which move together over their NOPs; else by growing a pure ACK. Options need no alignment (RFC 9293,
 * section 3.1).
 */
__weak __noinline int emptcp_edit_insert(void)
{
	struct emptcp_pkt *parsed = emptcp_parsed();
	__u32 total, len, need, reason;

	if (!parsed)
		return 0;
	len = parsed->argument & 0xff;
	reason = emptcp_no_insertion(parsed, len);
	if (reason)
		return emptcp_edit_refuse(parsed, reason);
	total = emptcp_options_total(parsed);
	if (!emptcp_gather(parsed, total, len))
		return emptcp_edit_refuse(parsed, EMPTCP_BAD_OPTION);
	if (parsed->fit) {
		emptcp_copy_block(parsed->built, parsed->block);
		emptcp_place(parsed, parsed->fit - 1, len, 0, false);
		parsed->built_len = total;
		return 1;
	}
	need = (parsed->out + len + 3) & ~3;
	if (need > EMPTCP_TCP_OPTIONS_MAX)
		return emptcp_edit_refuse(parsed, EMPTCP_NO_SPACE);
	if (need > total) {
		reason = emptcp_no_growth(parsed);
		if (reason)
			return emptcp_edit_refuse(parsed, reason);
		total = need;
	}
	emptcp_place(parsed, parsed->out, len, total, true);
	parsed->built_len = total;
	return 1;
}

#endif
