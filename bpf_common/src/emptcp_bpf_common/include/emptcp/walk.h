/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The walk over the TCP options: which are there, where, and which MPTCP options are valid.
 *
 * It works on the copy in the parsed packet, not on the packet, so an access needs no check against the
 * packet's end. Two global functions (not static, not inlined), because the verifier proves such a function
 * once, whatever calls it: the loop, and what is done with one option. The switch over the kinds inside of
 * the loop would be examined anew for every turn and every way through the turn before (120,000 instructions
 * instead of 12,000). For the same reason the cursor is kept in the map value: the verifier does not track
 * what is in there, so that after each option its states are equal. On the stack the loop is rejected after a
 * million.
 *
 * Rules: mptcp_get_options() and mptcp_parse_option() in net/mptcp/options.c.
 */
#ifndef EMPTCP_WALK_H
#define EMPTCP_WALK_H

#include <emptcp/abi.h>
#include <emptcp/bpf.h>
#include <emptcp/option.h>

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct emptcp_pkt);
} emptcp_packet SEC(".maps");

static __always_inline struct emptcp_pkt *emptcp_parsed(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&emptcp_packet, &first);
}

/* Of several reasons the first stands. */
static __always_inline void emptcp_forbid(struct emptcp_pkt *parsed, enum emptcp_reason reason)
{
	if (!parsed->no_modify)
		parsed->no_modify = reason;
}

/* Byte `n` of the option at the cursor. */
static __always_inline __u32 emptcp_walk_byte(const struct emptcp_pkt *parsed, __u32 cursor, __u32 n)
{
	return parsed->block[(cursor + n) & 63];
}

static __always_inline bool emptcp_legal_capable(struct emptcp_pkt *parsed, __u32 version, __u32 flags,
						 __u32 len)
{
	__u32 tcp = parsed->tcp_flags;

	if (version > 1 && len >= 4)
		emptcp_forbid(parsed, EMPTCP_BAD_VERSION);
	if (version > 1)
		return false;
	if ((flags & (EMPTCP_CAPABLE_ALGORITHMS | EMPTCP_CAPABLE_EXTENSIBILITY)) != EMPTCP_CAPABLE_SHA)
		return false;
	if ((tcp & (EMPTCP_SYN | EMPTCP_ACK)) == EMPTCP_SYN)
		return len == (version ? 4 : 12);
	if (tcp & EMPTCP_SYN)
		return len == 12;
	/* Version 1 repeats both keys on the first data, with the length of the mapping. */
	if (version == 1 && parsed->payload_len)
		return len == 22 || len == 24;
	return len == 20;
}

/* Bytes of a DSS without a checksum: 4 or 8 of acknowledgement, a mapping of 10 or 14. */
#define EMPTCP_DSS_BYTES(flags)                                                    \
	(4 + ((flags)&EMPTCP_DSS_ACK ? ((flags)&EMPTCP_DSS_ACK8 ? 8ULL : 4) : 0) + \
	 ((flags)&EMPTCP_DSS_MAP ? ((flags)&EMPTCP_DSS_SEQ8 ? 14 : 10) : 0))
/* What they lack of 28, for each value of the lowest four flags in a word's four bits of that number, and the
 * lowest bit of the next four, as the number is even. */
#define EMPTCP_DSS_MOST	       28
#define EMPTCP_DSS_LACK(flags) ((EMPTCP_DSS_MOST - EMPTCP_DSS_BYTES(flags)) << (flags)*4)
#define EMPTCP_DSS_LACKS(flags)                                                             \
	(EMPTCP_DSS_LACK(flags) | EMPTCP_DSS_LACK(flags + 1) | EMPTCP_DSS_LACK(flags + 2) | \
	 EMPTCP_DSS_LACK(flags + 3))

/* As long as the flags promise, with or without a checksum. Reserved bits, and a width without its field, are
 * masked as the kernel masks them. */
static __always_inline bool emptcp_legal_dss(__u32 flags, __u32 len)
{
	const __u64 lacks =
		EMPTCP_DSS_LACKS(0) | EMPTCP_DSS_LACKS(4) | EMPTCP_DSS_LACKS(8) | EMPTCP_DSS_LACKS(12);

	return ((len + ((__u32)(lacks >> (flags & 0xf) * 4) & 0x1e)) & ~2U) == EMPTCP_DSS_MOST;
}

/*
 * Version 1 tells an announcement (with HMAC) from an echo (without) by the E bit. Version 0 has the IP
 * version in those four bits and no HMAC: 4 and 6 have an even last bit, so 8 bytes with an even one can only
 * be version 0.
 */
static __always_inline bool emptcp_legal_add_addr(__u32 low, __u32 len)
{
	if (low & EMPTCP_ADD_ADDR_ECHO)
		return len == 8 || len == 10 || len == 20 || len == 22;
	if (len == 16 || len == 18 || len == 28 || len == 30)
		return true;
	return (low == 4 && (len == 8 || len == 10)) || (low == 6 && (len == 20 || len == 22));
}

/* Does this legal option say that the connection is of version 0? */
static __always_inline bool emptcp_is_old(__u32 subtype, __u32 low, __u32 len)
{
	if (subtype == EMPTCP_MP_CAPABLE)
		return low == 0;
	return subtype == EMPTCP_ADD_ADDR && !(low & EMPTCP_ADD_ADDR_ECHO) && len < 28 && len != 16 &&
	       len != 18;
}

/* Would the kernel take the MPTCP option at the cursor? The 4-byte MP_PRIO of RFC 6824 it does not. */
static __always_inline bool emptcp_legal(struct emptcp_pkt *parsed, __u32 cursor, __u32 len)
{
	__u32 head = emptcp_walk_byte(parsed, cursor, 2), flags = emptcp_walk_byte(parsed, cursor, 3);

	switch (head >> 4) {
	case EMPTCP_DSS:
		return emptcp_legal_dss(flags, len);
	case EMPTCP_MP_CAPABLE:
		return emptcp_legal_capable(parsed, head & 0xf, flags, len);
	case EMPTCP_MP_JOIN:
		return len == 12 || len == 16 || len == 24;
	case EMPTCP_ADD_ADDR:
		return emptcp_legal_add_addr(head & 0xf, len);
	case EMPTCP_REMOVE_ADDR:
		return len >= 4 && len <= 11;
	case EMPTCP_MP_PRIO:
		return len == 3;
	case EMPTCP_MP_FAIL:
	case EMPTCP_MP_FASTCLOSE:
		return len == 12;
	case EMPTCP_MP_TCPRST:
		return len == 4 && parsed->tcp_flags & EMPTCP_RST;
	}
	return false;
}

static __always_inline void emptcp_note_mptcp(struct emptcp_pkt *parsed, __u32 cursor, __u32 len)
{
	__u32 head = emptcp_walk_byte(parsed, cursor, 2), subtype = head >> 4;
	__u16 known = parsed->subtypes, bit = 1 << subtype;

	if (len < 3 || !emptcp_legal(parsed, cursor, len))
		return;
	parsed->repeated |= known & bit;
	parsed->subtypes = known | bit;
	parsed->at[subtype] = EMPTCP_TCP_HEADER + cursor;
	parsed->len[subtype] = len;
	parsed->flags |= EMPTCP_PKT_MPTCP;
	if (emptcp_is_old(subtype, head & 0xf, len))
		parsed->flags |= EMPTCP_PKT_MPTCP_V0;
}

/* RFC 7413; before it had a number, Fast Open was experiment 0xf989. */
static __always_inline bool emptcp_is_fast_open(const struct emptcp_pkt *parsed, __u32 cursor, __u32 len)
{
	if (emptcp_walk_byte(parsed, cursor, 0) == EMPTCP_KIND_FAST_OPEN)
		return true;
	return len >= 4 && emptcp_walk_byte(parsed, cursor, 2) == 0xf9 &&
	       emptcp_walk_byte(parsed, cursor, 3) == 0x89;
}

/* Take note of the option at the cursor, whose bytes were checked to be there. */
__weak __noinline int emptcp_note_option(void)
{
	struct emptcp_pkt *parsed = emptcp_parsed();
	__u32 cursor, len;

	if (!parsed)
		return 0;
	cursor = parsed->cursor;
	len = emptcp_walk_byte(parsed, cursor, 1);
	switch (emptcp_walk_byte(parsed, cursor, 0)) {
	case EMPTCP_KIND_MPTCP:
		emptcp_note_mptcp(parsed, cursor, len);
		break;
	case EMPTCP_KIND_TIMESTAMPS:
		if (len == 10)
			parsed->timestamps = EMPTCP_TCP_HEADER + cursor;
		break;
	case EMPTCP_KIND_SACK:
		if (len >= 10 && (len & 7) == 2)
			parsed->sack = EMPTCP_TCP_HEADER + cursor;
		break;
	case EMPTCP_KIND_WINDOW_SCALE:
		if (len == 3)
			parsed->window_scale = EMPTCP_TCP_HEADER + cursor;
		break;
	case EMPTCP_KIND_MD5:
	case EMPTCP_KIND_AO:
		emptcp_forbid(parsed, EMPTCP_SIGNED);
		break;
	case EMPTCP_KIND_FAST_OPEN:
	case EMPTCP_KIND_EXPERIMENT:
		if (parsed->tcp_flags & EMPTCP_SYN && emptcp_is_fast_open(parsed, cursor, len))
			emptcp_forbid(parsed, EMPTCP_SYN_DATA);
		break;
	}
	return 0;
}

/* Forget the options of the packet before. */
static __always_inline void emptcp_forget_options(struct emptcp_pkt *parsed)
{
	/* One by one, or the compiler makes one run of single bytes of it all. */
	WRITE_ONCE(((__u64 *)parsed->at)[0], 0);
	WRITE_ONCE(((__u64 *)parsed->at)[1], 0);
	WRITE_ONCE(((__u64 *)parsed->len)[0], 0);
	WRITE_ONCE(((__u64 *)parsed->len)[1], 0);
	WRITE_ONCE(parsed->subtypes, 0);
	WRITE_ONCE(parsed->repeated, 0);
	WRITE_ONCE(parsed->timestamps, 0);
	WRITE_ONCE(parsed->sack, 0);
	WRITE_ONCE(parsed->window_scale, 0);
	WRITE_ONCE(parsed->options_len, 0);
	parsed->flags &= ~(EMPTCP_PKT_MPTCP | EMPTCP_PKT_MPTCP_V0);
}

/* NOP NOP TIMESTAMPS: what nearly every segment of today's stacks begins with. */
#define EMPTCP_USUAL_OPTIONS 0x0101080a
#define EMPTCP_USUAL_LENGTH  12

/*
 * Take note of the copied options if they are timestamps and a DSS, two NOPs behind it or none, as in nearly
 * every segment of an MPTCP subflow. False: they are not, and nothing was noted. What was known before is
 * forgotten already.
 */
static __always_inline bool emptcp_note_usual(struct emptcp_pkt *parsed, __u32 end)
{
	const __u8 *option = parsed->block + EMPTCP_USUAL_LENGTH;
	__u32 len = option[1], behind = end - EMPTCP_USUAL_LENGTH - len;

	if (*(const __be32 *)parsed->block != bpf_htonl(EMPTCP_USUAL_OPTIONS) ||
	    option[0] != EMPTCP_KIND_MPTCP || option[2] >> 4 != EMPTCP_DSS ||
	    !emptcp_legal_dss(option[3], len))
		return false;
	if (behind &&
	    (behind != 2 || option[len & 31] != EMPTCP_KIND_NOP || option[(len & 31) + 1] != EMPTCP_KIND_NOP))
		return false;
	parsed->timestamps = EMPTCP_TCP_HEADER + 2;
	parsed->subtypes = 1 << EMPTCP_DSS;
	parsed->at[EMPTCP_DSS] = EMPTCP_TCP_HEADER + EMPTCP_USUAL_LENGTH;
	parsed->len[EMPTCP_DSS] = len;
	parsed->flags |= EMPTCP_PKT_MPTCP;
	parsed->options_len = end;
	return true;
}

/* Two NOPs take one turn, and an option is two bytes or more: the worst are a NOP and an option of two, in
 * turn. */
#define EMPTCP_WALK_TURNS 27

/*
 * Walk the first `argument` bytes of the copied options; what was known before is forgotten already. Stops
 * where the kernel does: at EOL, at a length below 2 or past the end.
 */
__weak __noinline int emptcp_walk_options(void)
{
	struct emptcp_pkt *parsed = emptcp_parsed();
	__u32 i, end;

	if (!parsed)
		return 0;
	end = parsed->argument;
	parsed->cursor = 0;
#pragma clang loop unroll(disable)
	for (i = 0; i < EMPTCP_WALK_TURNS; i++) {
		__u32 cursor = READ_ONCE(parsed->cursor), kind, len;

		if (cursor >= end)
			break;
		kind = emptcp_walk_byte(parsed, cursor, 0);
		if (kind == EMPTCP_KIND_EOL)
			break;
		len = emptcp_walk_byte(parsed, cursor, 1);
		if (kind == EMPTCP_KIND_NOP) {
			cursor += emptcp_below(len ^ EMPTCP_KIND_NOP, 1) & emptcp_below(cursor + 1, end);
			WRITE_ONCE(parsed->cursor, cursor + 1);
			continue;
		}
		/* A kind in the last byte has no length; whatever stands there, it ends past the end. */
		if (len < 2 || cursor + len > end)
			break;
		emptcp_note_option();
		WRITE_ONCE(parsed->cursor, cursor + len);
	}
	parsed->options_len = parsed->cursor;
	return 0;
}

#endif
