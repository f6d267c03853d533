/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Changing a packet, the same way at XDP and at TC.
 *
 * Every function answers true when the packet is as wanted, and false when it was left as it was; then
 * parsed->reason says why and the stage's counter of that reason goes up. Lengths, checksums, the parsed
 * offsets and the copy of the options stay right. Everything is checked before the first byte is written. At
 * TC bytes are written only by bpf_skb_store_bytes(), bpf_l3/l4_csum_replace() and bpf_skb_change_tail().
 *
 * The fixed part of the TCP header is changed where emptcp_tcp() has it: the packet's own, and TCP's
 * checksum, follow at the end, for all stages at once. Pointers into the packet end with any of these calls.
 *
 * `unsafe` is EMPTCP_SAFE or EMPTCP_UNSAFE_DSS: without it a DSS is never changed, inserted or removed.
 */
#ifndef EMPTCP_CHANGE_H
#define EMPTCP_CHANGE_H

#include <emptcp/abi.h>
#include <emptcp/bpf.h>
#include <emptcp/checksum.h>
#include <emptcp/edit.h>
#include <emptcp/option.h>
#include <emptcp/packet.h>
#include <emptcp/walk.h>

/* Leave every DSS as it is. */
#define EMPTCP_SAFE false
/* An operator said `unsafe = true`. */
#define EMPTCP_UNSAFE_DSS true

static __always_inline bool emptcp_refuse(const struct emptcp_handle *pkt, enum emptcp_reason reason)
{
	pkt->parsed->reason = reason;
	return false;
}

/* Whether anything in this packet may be changed at all. */
static __always_inline bool emptcp_may_change(const struct emptcp_handle *pkt)
{
	enum emptcp_reason reason = pkt->parsed->no_modify;

	return !reason || emptcp_refuse(pkt, reason);
}

/* A word goes in one piece: whoever reads it next would wait for bytes to come together. */
static __always_inline void emptcp_put(void *place, const void *bytes, __u32 len, __u32 from)
{
	__u16 word;

	if (len == sizeof(word) && !(from & 1)) {
		__builtin_memcpy(&word, bytes, sizeof(word));
		*(__u16 *)place = word;
		return;
	}
	__builtin_memcpy(place, bytes, len);
}

/* Write `len` bytes (a constant) of the TCP header's twenty, from its byte `from` on: the packet's own, and
 * the checksum, core brings along at the end. */
static __always_inline void emptcp_store(const struct emptcp_handle *pkt, __u32 from, const void *bytes,
					 __u32 len)
{
	__u8 *place = (__u8 *)&pkt->parsed->tcp;

	/* The compiler would leave out a check that follows from another one. */
	if (!__builtin_constant_p(from))
		asm("" : "+r"(from));
	if (from > sizeof(struct tcphdr) - len)
		return;
	if (from < EMPTCP_TCP_CHECK && from + len > EMPTCP_TCP_LENGTH)
		pkt->parsed->written = 1;
	if (from < EMPTCP_TCP_LENGTH || from + len > EMPTCP_TCP_CHECK)
		pkt->parsed->written_rest = 1;
	emptcp_put(place + from, bytes, len, from);
}

/* Write `built` over the options, `len` bytes; the packet was checked to reach that far. */
static __always_inline bool emptcp_store_options(const struct emptcp_handle *pkt, __u32 len)
{
	__u32 offset = pkt->parsed->l4 + EMPTCP_TCP_HEADER, i;

	if (len < 4 || len > EMPTCP_TCP_OPTIONS_MAX)
		return false;
	if (pkt->backend == EMPTCP_TC)
		return !bpf_skb_store_bytes(pkt->ctx, offset, pkt->parsed->built, emptcp_size(len), 0);
#pragma clang loop unroll(disable)
	for (i = 0; i < EMPTCP_TCP_OPTIONS_MAX / 4; i++) {
		__u32 *place;

		if (i * 4 >= len)
			break;
		place = emptcp_bytes(pkt, offset + i * 4, sizeof(*place));
		if (!place)
			return false;
		*place = ((const __u32 *)pkt->parsed->built)[i];
	}
	return true;
}

/* What the packet's sum grows by when `built` takes the place of `old_len` bytes of `block`. */
static __always_inline __s64 emptcp_options_change(const struct emptcp_handle *pkt, __u32 old_len,
						   __u32 new_len)
{
	const __u8 *block = pkt->parsed->block, *built = pkt->parsed->built;

	if (!new_len || old_len > EMPTCP_TCP_OPTIONS_MAX || new_len > EMPTCP_TCP_OPTIONS_MAX)
		return -1;
	if (!old_len)
		return bpf_csum_diff(NULL, 0, built, emptcp_size(new_len), 0);
	return bpf_csum_diff(block, emptcp_size(old_len), built, emptcp_size(new_len), 0);
}

/* The packet has the new options now: so have the copy and what is known of them. */
static __always_inline void emptcp_options_changed(const struct emptcp_handle *pkt, __u32 len)
{
	struct emptcp_pkt *parsed = pkt->parsed;

	emptcp_copy_block(parsed->block, parsed->built);
	emptcp_forget_options(parsed);
	parsed->argument = len;
	emptcp_walk_options();
}

/* Write an edit that keeps the length. */
static __always_inline bool emptcp_commit(const struct emptcp_handle *pkt)
{
	__u32 len = pkt->parsed->built_len;
	__s64 change = emptcp_options_change(pkt, len, len);

	if (change < 0 || pkt->parsed->payload > emptcp_length(pkt->ctx, pkt->backend))
		return emptcp_refuse(pkt, EMPTCP_REFUSED);
	if (!emptcp_store_options(pkt, len))
		return emptcp_refuse(pkt, EMPTCP_REFUSED);
	emptcp_tcp_check_add(pkt, emptcp_fold(change));
	emptcp_options_changed(pkt, len);
	return true;
}

/*
 * Make room for `grow` bytes behind the IP packet. An Ethernet frame may have padding there, which is used up
 * first. Leaves the packet valid: what was added is padding as long as no length says otherwise.
 */
static __always_inline bool emptcp_make_room(const struct emptcp_handle *pkt, __u32 grow)
{
	__u32 end = pkt->parsed->ip_end, length = emptcp_length(pkt->ctx, pkt->backend);
	const __u8 zeros[64] = {};

	if (end > length || grow == 0 || grow > EMPTCP_TCP_OPTIONS_MAX)
		return false;
	if (length < end + grow) {
		if (pkt->backend == EMPTCP_XDP)
			return !bpf_xdp_adjust_tail(pkt->ctx, end + grow - length);
		return !bpf_skb_change_tail(pkt->ctx, end + grow, 0);
	}
	/* A CHECKSUM_COMPLETE sum covers padding: take it out before it becomes options. */
	if (pkt->backend == EMPTCP_TC)
		return !bpf_skb_store_bytes(pkt->ctx, end, zeros, emptcp_size(grow), BPF_F_RECOMPUTE_CSUM);
	return true;
}

/* Write two bytes of the IP header. */
static __always_inline bool emptcp_store_ip(const struct emptcp_handle *pkt, __u32 offset, __be16 value,
					    __u64 flags)
{
	__be16 *place;

	if (pkt->backend == EMPTCP_TC)
		return !bpf_skb_store_bytes(pkt->ctx, offset, &value, sizeof(value), flags);
	place = emptcp_bytes(pkt, offset, sizeof(*place));
	if (!place)
		return false;
	*place = value;
	return true;
}

/*
 * The IP packet is `grow` bytes longer. For IPv4 the header's checksum makes up for the length, so the sum
 * that a CHECKSUM_COMPLETE packet carries stays. For IPv6 TCP's pseudo-header does; bpf_l4_csum_replace()
 * takes its part out of the carried sum, so the length's part has to go in.
 */
static __always_inline bool emptcp_lengthen_ip(const struct emptcp_handle *pkt, __u32 grow)
{
	__u32 offset = pkt->parsed->l3 + (pkt->parsed->family == 4 ? 2 : 4);
	const __be16 *field = emptcp_bytes(pkt, offset, sizeof(*field));
	__be16 old, new;

	if (!field)
		return false;
	old = *field;
	new = bpf_htons(bpf_ntohs(old) + grow);
	if (pkt->parsed->family == 6)
		return emptcp_store_ip(pkt, offset, new, BPF_F_RECOMPUTE_CSUM);
	return emptcp_store_ip(pkt, offset, new, 0) &&
	       emptcp_ip4_check_add(pkt, emptcp_word_change(old, new));
}

/* Tell TCP of its new header length, and of the segment's in the pseudo-header. */
static __always_inline bool emptcp_lengthen_tcp(const struct emptcp_handle *pkt, __u32 grow)
{
	__u32 segment = pkt->parsed->ip_end - pkt->parsed->l4;
	__be16 old = bpf_htons(segment), new = bpf_htons(segment + grow);
	__u8 longer = ((const __u8 *)emptcp_tcp(pkt))[EMPTCP_TCP_LENGTH] + (grow / 4 << 4);

	emptcp_store(pkt, EMPTCP_TCP_LENGTH, &longer, sizeof(longer));
	return emptcp_pseudo_check_add(pkt, emptcp_word_change(old, new));
}

/* Write an edit that makes a pure ACK `grow` bytes longer. */
static __always_inline bool emptcp_commit_longer(const struct emptcp_handle *pkt, __u32 grow)
{
	struct emptcp_pkt *parsed = pkt->parsed;
	__u32 len = parsed->built_len;
	__s64 change = emptcp_options_change(pkt, len - grow, len);

	if (change < 0 || !emptcp_make_room(pkt, grow))
		return emptcp_refuse(pkt, EMPTCP_REFUSED);
	/* All of the packet is writable now, and long enough: nothing below fails. */
	if (!emptcp_store_options(pkt, len))
		return emptcp_refuse(pkt, EMPTCP_REFUSED);
	emptcp_tcp_check_add(pkt, emptcp_fold(change));
	if (!emptcp_lengthen_tcp(pkt, grow) || !emptcp_lengthen_ip(pkt, grow))
		return emptcp_refuse(pkt, EMPTCP_REFUSED);
	parsed->payload += grow;
	parsed->ip_end += grow;
	emptcp_options_changed(pkt, len);
	return true;
}

/* Bytes of the fixed header that may be rewritten: not the ports (they are the key), not the header's length,
 * not the checksum (it follows by itself). */
static __always_inline bool emptcp_is_rewritable(__u32 from, __u32 len)
{
	const __u64 fixed = 0xf | 1 << 12 | 3 << EMPTCP_TCP_CHECK;

	return !(((1ULL << (len & 63)) - 1) << (from & 63) & fixed);
}

/* The flags were rewritten: read them again, and the options, since which ones are legal depends on them.
 * What has become a SYN with data is left alone from now on. */
static __always_inline void emptcp_flags_changed(const struct emptcp_handle *pkt)
{
	struct emptcp_pkt *parsed = pkt->parsed;
	__u8 flags = ((const __u8 *)emptcp_tcp(pkt))[EMPTCP_TCP_FLAGS];

	parsed->tcp_flags = flags;
	parsed->flags &= ~EMPTCP_PKT_PURE_ACK;
	if (emptcp_is_bare_ack(flags) && parsed->ip_end == parsed->payload)
		parsed->flags |= EMPTCP_PKT_PURE_ACK;
	if (flags & EMPTCP_SYN && parsed->payload_len)
		emptcp_forbid(parsed, EMPTCP_SYN_DATA);
	if (!parsed->options_len)
		return;
	emptcp_forget_options(parsed);
	parsed->argument = emptcp_options_total(parsed);
	emptcp_walk_options();
}

static __always_inline bool emptcp_rewrite_header(const struct emptcp_handle *pkt, __u32 from,
						  const void *bytes, __u32 len)
{
	if (!emptcp_is_rewritable(from, len))
		return emptcp_refuse(pkt, EMPTCP_UNSAFE);
	emptcp_store(pkt, from, bytes, len);
	if (from <= EMPTCP_TCP_FLAGS && from + len > EMPTCP_TCP_FLAGS)
		emptcp_flags_changed(pkt);
	return true;
}

static __always_inline bool emptcp_rewrite_options(const struct emptcp_handle *pkt, __u32 from,
						   const void *bytes, __u32 len, bool unsafe)
{
	struct emptcp_pkt *parsed = pkt->parsed;

	__builtin_memcpy(parsed->option, bytes, len);
	parsed->cursor = from;
	parsed->built_len = len;
	parsed->argument = unsafe ? EMPTCP_EDIT_UNSAFE : 0;
	return emptcp_edit_rewrite() && emptcp_commit(pkt);
}

/* emptcp_rewrite(), within a DSS too if `unsafe`. */
static __always_inline bool emptcp_rewrite_any(const struct emptcp_handle *pkt, __u32 offset,
					       const void *bytes, __u32 len, bool unsafe)
{
	__u32 from = offset - pkt->parsed->l4;

	if (!emptcp_may_change(pkt))
		return false;
	if (offset < pkt->parsed->l4 || offset + len > pkt->parsed->payload)
		return emptcp_refuse(pkt, EMPTCP_TRUNCATED);
	if (from >= EMPTCP_TCP_HEADER)
		return emptcp_rewrite_options(pkt, from - EMPTCP_TCP_HEADER, bytes, len, unsafe);
	if (from + len > EMPTCP_TCP_HEADER)
		return emptcp_refuse(pkt, EMPTCP_BAD_OPTION);
	return emptcp_rewrite_header(pkt, from, bytes, len);
}

/*
 * Rewrite `len` bytes (a constant, at most 32) of the TCP header in place, `offset` from the first byte of
 * the packet. In the options no kind, length, MPTCP subtype or NOP may change. Refused: EMPTCP_UNSAFE for
 * ports, header length, checksum and DSS; EMPTCP_TRUNCATED outside of the header.
 */
EMPTCP_PUBLIC bool emptcp_rewrite(const struct emptcp_handle *pkt, __u32 offset, const void *bytes, __u32 len)
{
	return emptcp_rewrite_any(pkt, offset, bytes, len, EMPTCP_SAFE);
}

/* Rewrite `len` bytes (a constant) `at` bytes into an MPTCP option, by the rules of emptcp_rewrite(); an
 * option that is there twice is left alone. */
EMPTCP_PUBLIC bool emptcp_rewrite_option(const struct emptcp_handle *pkt, enum emptcp_subtype subtype,
					 __u32 at, const void *bytes, __u32 len, bool unsafe)
{
	__u32 option = pkt->parsed->at[subtype & (EMPTCP_SUBTYPES - 1)] - EMPTCP_TCP_HEADER;

	if (!emptcp_has(pkt, subtype))
		return emptcp_refuse(pkt, EMPTCP_NO_OPTION);
	if (pkt->parsed->repeated >> subtype & 1 || at + len > emptcp_option_len(pkt, subtype))
		return emptcp_refuse(pkt, EMPTCP_BAD_OPTION);
	return emptcp_may_change(pkt) && emptcp_rewrite_options(pkt, option + at, bytes, len, unsafe);
}

/* Turn an MPTCP option into NOPs, wherever it stands and as often as it is there. */
EMPTCP_PUBLIC bool emptcp_remove_option(const struct emptcp_handle *pkt, enum emptcp_subtype subtype,
					bool unsafe)
{
	if (!emptcp_may_change(pkt))
		return false;
	pkt->parsed->argument = subtype | (unsafe ? EMPTCP_EDIT_UNSAFE : 0);
	return emptcp_edit_remove() && emptcp_commit(pkt);
}

/* Where to build an option that emptcp_insert_built() inserts: 40 bytes. */
EMPTCP_PUBLIC __u8 *emptcp_option_space(const struct emptcp_handle *pkt)
{
	return pkt->parsed->option;
}

/* Insert the `len` bytes in emptcp_option_space(): one whole TCP option. `len` may be a variable. */
EMPTCP_PUBLIC bool emptcp_insert_built(const struct emptcp_handle *pkt, __u32 len, bool unsafe)
{
	__u32 longer;

	if (!emptcp_may_change(pkt))
		return false;
	pkt->parsed->argument = (len & 0xff) | (unsafe ? EMPTCP_EDIT_UNSAFE : 0);
	if (!emptcp_edit_insert())
		return false;
	longer = pkt->parsed->built_len - (pkt->parsed->payload - pkt->parsed->l4 - EMPTCP_TCP_HEADER);
	return longer ? emptcp_commit_longer(pkt, longer) : emptcp_commit(pkt);
}

/*
 * Insert a TCP option of `len` bytes (a constant): into NOPs, if need be by moving the other options
 * together; else a pure ACK grows at its tail. Refused: EMPTCP_NO_SPACE, EMPTCP_NOT_PURE_ACK, EMPTCP_GSO
 * (these two: only growing would help), EMPTCP_CLOSING, EMPTCP_BAD_OPTION, EMPTCP_UNSAFE for a DSS.
 */
EMPTCP_PUBLIC bool emptcp_insert_option(const struct emptcp_handle *pkt, const void *bytes, __u32 len)
{
	__builtin_memcpy(emptcp_option_space(pkt), bytes, len);
	return emptcp_insert_built(pkt, len, EMPTCP_SAFE);
}

/*
 * Let the receive window that this packet announces be at most `bytes`. Never raises it, never touches a SYN
 * or a zero window, and never makes one: less than one unit of the window's scale becomes one unit. The scale
 * is in the subflow's SYN: without having seen it the packet is left alone (EMPTCP_UNKNOWN_STATE). It stands
 * in the flow table: the actor keeps state, or its manifest says reads = ["options", "flow"].
 */
EMPTCP_PUBLIC bool emptcp_cap_window(const struct emptcp_handle *pkt, const struct tcphdr *tcp, __u32 bytes)
{
	__u32 scale = 0, limit, window = bpf_ntohs(tcp->window);
	__be16 field;

	if (tcp->syn || !window)
		return true;
	if (pkt->flow)
		scale = pkt->parsed->direction ? pkt->flow->wscale[1] : pkt->flow->wscale[0];
	if (!scale || scale > 15)
		return emptcp_refuse(pkt, EMPTCP_UNKNOWN_STATE);
	limit = bytes >> (scale - 1);
	if (!limit)
		limit = 1;
	if (window <= limit)
		return true;
	if (!emptcp_may_change(pkt))
		return false;
	field = bpf_htons(limit);
	emptcp_store(pkt, __builtin_offsetof(struct tcphdr, window), &field, sizeof(field));
	return true;
}

/* What emptcp_mark_ce() found. */
enum emptcp_ecn {
	EMPTCP_ECN_MARKED =
		0, /* the packet says "congestion experienced" (RFC 3168), as it may have before */
	EMPTCP_ECN_NOT_ECT = 1, /* its sender does not understand that */
	EMPTCP_ECN_REFUSED = 2, /* it could not be written */
};

/* Write the byte of the IP header at `offset`; IPv4's checksum covers it, as the first or second of a word.
 */
static __always_inline bool emptcp_store_ip_byte(const struct emptcp_handle *pkt, __u32 offset, __u8 old,
						 __u8 new)
{
	/* IPv4's checksum makes up for what a CHECKSUM_COMPLETE packet carries, IPv6 has none. */
	__u64 carried = pkt->parsed->family == 4 ? 0 : BPF_F_RECOMPUTE_CSUM;
	__u32 half = offset - pkt->parsed->l3 & 1;
	__u32 change = emptcp_word_change(bpf_htons(half ? old : old << 8), bpf_htons(half ? new : new << 8));
	__u8 *place;

	if (pkt->parsed->family == 4 && !emptcp_ip4_check_add(pkt, emptcp_fold(change)))
		return false;
	if (pkt->backend == EMPTCP_TC)
		return !bpf_skb_store_bytes(pkt->ctx, offset, &new, 1, carried);
	place = emptcp_bytes(pkt, offset, 1);
	if (!place)
		return false;
	*place = new;
	return true;
}

/* Mark a packet whose sender understands ECN. TCP's checksum does not cover what is written. */
EMPTCP_PUBLIC enum emptcp_ecn emptcp_mark_ce(const struct emptcp_handle *pkt)
{
	/* The two bits: the last ones of IPv4's second byte, in the middle of IPv6's. */
	__u32 shift = pkt->parsed->family == 4 ? 0 : 4, offset = pkt->parsed->l3 + 1, bits;
	const __u8 *byte = emptcp_bytes(pkt, offset, 1);
	__u8 old;

	if (!byte)
		return EMPTCP_ECN_REFUSED;
	old = *byte;
	bits = old >> shift & 3;
	if (!bits)
		return EMPTCP_ECN_NOT_ECT;
	if (bits != 3 && !emptcp_store_ip_byte(pkt, offset, old, old | 3 << shift))
		return EMPTCP_ECN_REFUSED;
	return EMPTCP_ECN_MARKED;
}

#endif
