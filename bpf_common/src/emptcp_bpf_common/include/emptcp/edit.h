/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Edits of the TCP options, worked out on the parsed packet's copy: `block` is what is there, `built` what is
 * to be. Nothing here touches the packet; <emptcp/change.h> writes `built` into it when all is decided.
 *
 * An edit first makes sets of bytes, one bit each: NOPs, first bytes of options, bytes of one option. Then
 * it goes through the forty bytes and asks the sets. All jumps in these loops leave them: with a way through
 * a turn for every role a byte can have, the verifier gives up after a million instructions.
 */
#ifndef EMPTCP_EDIT_H
#define EMPTCP_EDIT_H

#include <emptcp/abi.h>
#include <emptcp/bpf.h>
#include <emptcp/option.h>
#include <emptcp/walk.h>

/* emptcp_pkt.argument of an edit: a number in the low byte, and this bit for edits of a DSS. */
#define EMPTCP_EDIT_UNSAFE 0x100

/* No byte is in none of the sets: bytes behind the block count as free. */
#define EMPTCP_BITS_FROM(n) (~0ULL << ((n)&63))

static __always_inline __u64 emptcp_bit(__u64 set, __u32 n)
{
	return set >> (n & 63) & 1;
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

/* Eight bits, the lowest first, as eight bytes of 1 or 0: a loop over words takes an eighth of the rounds. */
static __always_inline __u64 emptcp_bytes_from_bits(__u64 bits)
{
	__u64 apart = (bits & 0xff) * 0x0101010101010101ULL & 0x8040201008040201ULL;

	return (apart + 0x7f7f7f7f7f7f7f7fULL) >> 7 & 0x0101010101010101ULL;
}

/* The contrary: a bit for each of eight bytes that is not 0, the lowest byte's first. */
static __always_inline __u64 emptcp_bits_from_bytes(__u64 bytes)
{
	__u64 low = 0x7f7f7f7f7f7f7f7fULL, ones = ((bytes & low) + low | bytes) >> 7 & 0x0101010101010101ULL;

	return ones * 0x0102040810204080ULL >> 56;
}

/* A block to `built`, with NOPs where a bit of `gone` is set: NOPs are bytes of 1. */
static __always_inline void emptcp_put_nops(struct emptcp_pkt *parsed, const __u8 *block, __u64 gone)
{
	__u32 i;

	_Static_assert(EMPTCP_KIND_NOP == 1, "NOPs are not bytes of 1");
#pragma clang loop unroll(disable)
	for (i = 0; i < EMPTCP_TCP_OPTIONS_MAX / 8; i++) {
		__u64 nops = emptcp_bytes_from_bits(gone >> 8 * i);

		((__u64 *)parsed->built)[i] = (((const __u64 *)block)[i] & ~(nops * 0xff)) | nops;
	}
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

/* Find NOPs and options in the bytes that the parser walked, so that all lengths are good. */
__weak __noinline int emptcp_edit_scan(void)
{
	struct emptcp_pkt *parsed = emptcp_parsed();
	__u32 cursor = 0, count = 0, end, i;
	__u64 nops = 0, heads = 0;

	if (!parsed)
		return 0;
	end = parsed->options_len;
#pragma clang loop unroll(disable)
	for (i = 0; i < EMPTCP_TCP_OPTIONS_MAX && cursor < end; i++) {
		__u64 nop = emptcp_below(emptcp_walk_byte(parsed, cursor, 0), EMPTCP_KIND_NOP + 1),
		      head = 1 - nop;

		parsed->places[count & 31] = cursor;
		count += head;
		nops |= nop << (cursor & 63);
		heads |= head << (cursor & 63);
		cursor += emptcp_walk_byte(parsed, cursor, 1) * head + nop;
	}
	parsed->nops = nops;
	parsed->heads = heads;
	parsed->places_len = count;
	return 0;
}

/* The bytes of all options of an MPTCP subtype, legal ones or not. */
static __always_inline __u64 emptcp_bytes_of(const struct emptcp_pkt *parsed, __u32 subtype)
{
	__u64 found = 0;
	__u32 i;

#pragma clang loop unroll(disable)
	for (i = 0; i < EMPTCP_TCP_OPTIONS_MAX / 2 && i < parsed->places_len; i++) {
		__u32 place = parsed->places[i], kind = emptcp_walk_byte(parsed, place, 0);
		__u32 len = emptcp_walk_byte(parsed, place, 1), head = emptcp_walk_byte(parsed, place, 2);
		__u64 other = (kind ^ EMPTCP_KIND_MPTCP) | ((head >> 4) ^ subtype) | emptcp_below(len, 3);

		found |= ((emptcp_below(other, 1) << (len & 63)) - emptcp_below(other, 1)) << (place & 63);
	}
	return found;
}

/*
 * Remove: NOPs over the option of subtype `argument`; over each one when it is there more than once. The
 * answer of all edits is 1, or 0 with the reason in parsed->reason.
 */
__weak __noinline int emptcp_edit_remove(void)
{
	struct emptcp_pkt *parsed = emptcp_parsed();
	__u32 subtype;
	__u64 gone;

	if (!parsed)
		return 0;
	subtype = parsed->argument & (EMPTCP_SUBTYPES - 1);
	if (!(parsed->subtypes >> subtype & 1))
		return emptcp_edit_refuse(parsed, EMPTCP_NO_OPTION);
	if (subtype == EMPTCP_DSS && !(parsed->argument & EMPTCP_EDIT_UNSAFE))
		return emptcp_edit_refuse(parsed, EMPTCP_UNSAFE);
	gone = ((1ULL << (parsed->len[subtype] & 63)) - 1)
	       << ((parsed->at[subtype] - EMPTCP_TCP_HEADER) & 63);
	if (parsed->repeated >> subtype & 1) {
		emptcp_edit_scan();
		gone = emptcp_bytes_of(parsed, subtype);
	}
	parsed->built_len = emptcp_options_total(parsed);
	emptcp_put_nops(parsed, parsed->block, gone);
	return 1;
}

/* Word `n` of what an option is when it begins `by` bytes further on; bytes that it does not have are any. */
static __always_inline __u64 emptcp_moved_word(const __u8 *option, __u32 n, __u32 by)
{
	const __u64 *words = (const __u64 *)option;
	__u32 at = n - (by >> 3), bits = 8 * (by & 7);

	return words[at & 7] << bits | words[(at - 1) & 7] >> 1 >> (63 - bits);
}

/*
 * Rewrite: `built_len` bytes from `cursor` on become those of `option`. Kinds, lengths, subtypes, NOPs and
 * what is behind the last option must stay what they are, so that no option begins or ends elsewhere than
 * before.
 */
__weak __noinline int emptcp_edit_rewrite(void)
{
	struct emptcp_pkt *parsed = emptcp_parsed();
	__u64 range, fixed, dss, changed = 0, nibbles = 0;
	__u32 from, i;

	if (!parsed)
		return 0;
	emptcp_edit_scan();
	from = parsed->cursor;
	range = ((1ULL << (parsed->built_len & 63)) - 1) << (from & 63);
	parsed->built_len = emptcp_options_total(parsed);
#pragma clang loop unroll(disable)
	for (i = 0; i < EMPTCP_TCP_OPTIONS_MAX / 8; i++) {
		__u64 now = ((const __u64 *)parsed->block)[i],
		      then = emptcp_moved_word(parsed->option, i, from);
		__u64 change = (now ^ then) & emptcp_bytes_from_bits(range >> 8 * i) * 0xff;

		((__u64 *)parsed->built)[i] = now ^ change;
		changed |= emptcp_bits_from_bytes(change) << 8 * i;
		nibbles |= emptcp_bits_from_bytes(change & 0xf0f0f0f0f0f0f0f0ULL) << 8 * i;
	}
	fixed = parsed->heads | parsed->heads << 1 | parsed->nops | EMPTCP_BITS_FROM(parsed->options_len);
	dss = emptcp_bytes_of(parsed, EMPTCP_DSS);
	if (changed & fixed || nibbles & parsed->heads << 2)
		return emptcp_edit_refuse(parsed, EMPTCP_BAD_OPTION);
	if (changed & dss && !(parsed->argument & EMPTCP_EDIT_UNSAFE))
		return emptcp_edit_refuse(parsed, EMPTCP_UNSAFE);
	return 1;
}

/* Bytes behind EOL that are zero are free. Garbage there, or a broken option, is not ours to move. */
static __always_inline bool emptcp_is_clean(const struct emptcp_pkt *parsed, __u32 total)
{
	__u64 rest = EMPTCP_BITS_FROM(parsed->options_len) & ~EMPTCP_BITS_FROM(total);
	__u64 found = 0;
	__u32 i;

#pragma clang loop unroll(disable)
	for (i = 0; i < EMPTCP_TCP_OPTIONS_MAX / 8; i++)
		found |= ((const __u64 *)parsed->block)[i] & emptcp_bytes_from_bits(rest >> 8 * i) * 0xff;
	return !found;
}

/* Offset of the first `len` NOPs in a row; 64: there are none. A row is one of 1, 2, 4 .. and so on, as the
 * bits of `len` say. */
static __always_inline __u32 emptcp_row_of_nops(const struct emptcp_pkt *parsed, __u32 len)
{
	__u64 rows = parsed->nops, starts = ~0ULL;
	__u32 before = 0, i;

#pragma clang loop unroll(disable)
	for (i = 0; i < 6; i++) {
		__u64 part = -emptcp_bit(len, i);

		starts &= rows >> (before & 63) | ~part;
		before += part & 1 << i;
		rows &= rows >> (1 << i);
	}
	/* The ones below the lowest bit that is set. */
	return __builtin_popcountll((starts & -starts) - 1);
}

/* The options without NOPs between them, to `built`; how many bytes they are. */
static __always_inline __u32 emptcp_gather(struct emptcp_pkt *parsed)
{
	__u64 free = parsed->nops | EMPTCP_BITS_FROM(parsed->options_len);
	__u32 out = 0, i;

#pragma clang loop unroll(disable)
	for (i = 0; i < EMPTCP_TCP_OPTIONS_MAX; i++) {
		parsed->built[out & 63] = parsed->block[i];
		out += 1 - emptcp_bit(free, i);
	}
	return out;
}

/* The option over what `built` has at `at`. */
static __always_inline void emptcp_put_option(struct emptcp_pkt *parsed, __u32 at, __u32 len)
{
	__u32 i;

#pragma clang loop unroll(disable)
	for (i = 0; i < EMPTCP_TCP_OPTIONS_MAX && i < len; i++)
		parsed->built[(at + i) & 63] = parsed->option[i];
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
	__u32 total, len, at, need, reason;

	if (!parsed)
		return 0;
	reason = emptcp_no_insertion(parsed, parsed->argument & 0xff);
	if (reason)
		return emptcp_edit_refuse(parsed, reason);
	WRITE_ONCE(parsed->built_len, emptcp_options_total(parsed));
	/* Read anew, or the verifier goes through the rest for each way on which it came here. */
	total = READ_ONCE(parsed->built_len);
	len = READ_ONCE(parsed->argument) & 0xff;
	if (!emptcp_is_clean(parsed, total))
		return emptcp_edit_refuse(parsed, EMPTCP_BAD_OPTION);
	emptcp_edit_scan();
	at = emptcp_row_of_nops(parsed, len);
	if (at < 64) {
		emptcp_copy_block(parsed->built, parsed->block);
	} else {
		at = emptcp_gather(parsed);
		need = (at + len + 3) & ~3;
		if (need > EMPTCP_TCP_OPTIONS_MAX)
			return emptcp_edit_refuse(parsed, EMPTCP_NO_SPACE);
		if (need > total) {
			reason = emptcp_no_growth(parsed);
			if (reason)
				return emptcp_edit_refuse(parsed, reason);
			parsed->built_len = need;
		}
		emptcp_put_nops(parsed, parsed->built, EMPTCP_BITS_FROM(at));
	}
	WRITE_ONCE(parsed->cursor, at);
	emptcp_put_option(parsed, READ_ONCE(parsed->cursor), len);
	return 1;
}

#endif
