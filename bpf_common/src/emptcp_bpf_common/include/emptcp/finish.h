/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What core does behind the last stage: bring the packet along with what the stages made of the fixed part of
 * its TCP header, and TCP's checksum with all that was changed.
 */
#ifndef EMPTCP_FINISH_H
#define EMPTCP_FINISH_H

#include <emptcp/abi.h>
#include <emptcp/bpf.h>
#include <emptcp/checksum.h>
#include <emptcp/packet.h>

/* A sum that stays the same sum, and from which so many words can be taken. */
#define EMPTCP_ROOM_FOR(words) ((words)*0xffffULL)

/*
 * What TCP's sum has grown by, of the header as the stages left it over the packet's. By fields, as they were
 * written: whoever reads more in one piece waits for it to come together.
 */
static __always_inline __u64 emptcp_header_change(const struct emptcp_pkt *parsed, const struct tcphdr *tcp)
{
	const __u16 *now = (const void *)&parsed->tcp, *before = (const void *)tcp;
	__u64 sum = 0;

	if (parsed->written) /* the length and flags, and the window */
		sum += EMPTCP_ROOM_FOR(2) + now[6] - before[6] + now[7] - before[7];
	if (parsed->written_rest)
		sum += EMPTCP_ROOM_FOR(0x20003ULL) + parsed->tcp.seq - tcp->seq + parsed->tcp.ack_seq -
		       tcp->ack_seq + parsed->tcp.urg_ptr - tcp->urg_ptr;
	return sum;
}

static __always_inline void emptcp_finish_frame(const struct emptcp_pkt *parsed, void *tcp, __u64 change)
{
	__u16 *halves = tcp;
	__u32 *words = tcp;

	if (parsed->written) {
		halves[6] = ((const __u16 *)&parsed->tcp)[6];
		halves[7] = parsed->tcp.window;
	}
	if (parsed->written_rest) {
		words[1] = parsed->tcp.seq;
		words[2] = parsed->tcp.ack_seq;
		halves[9] = parsed->tcp.urg_ptr;
	}
	halves[8] = ~emptcp_fold(change + (__u16)~halves[8]);
}

/*
 * From the sequence number on, as nothing rewrites the ports. It goes in one piece up to the header's end:
 * what can write that can write the checksum, too. So if this is refused, which takes a machine without
 * memory, the packet is as it came; options that were changed made all before them writable.
 */
static __always_inline void emptcp_finish_skb(const struct emptcp_handle *pkt, __u64 change)
{
	const __u32 from = __builtin_offsetof(struct tcphdr, seq), size = sizeof(struct tcphdr) - from;
	const struct emptcp_pkt *parsed = pkt->parsed;
	__u32 offset = parsed->l4;

	if (!(parsed->written | parsed->written_rest) ||
	    !bpf_skb_store_bytes(pkt->ctx, offset + from, &parsed->tcp.seq, size, 0))
		bpf_l4_csum_replace(pkt->ctx, offset + EMPTCP_TCP_CHECK, 0, emptcp_fold(change), 0);
}

/* Bring the packet along. What there was to do is still noted then. */
static __always_inline void emptcp_finish(const struct emptcp_handle *pkt)
{
	const struct emptcp_pkt *parsed = pkt->parsed;
	__u64 change;
	void *tcp;

	if (!(parsed->written | parsed->written_rest | parsed->sum))
		return;
	tcp = emptcp_parsed_bytes(pkt, parsed->l4, sizeof(struct tcphdr));
	if (!tcp)
		return;
	change = parsed->sum + emptcp_header_change(parsed, tcp);
	if (pkt->backend == EMPTCP_TC)
		emptcp_finish_skb(pkt, change);
	else
		emptcp_finish_frame(parsed, tcp, change);
}

/* Before a stage whose headers are older than emptcp_pkt.tcp: it looks for the header in the packet. */
static __always_inline void emptcp_put_header(const struct emptcp_handle *pkt)
{
	emptcp_finish(pkt);
	pkt->parsed->written = 0;
	pkt->parsed->written_rest = 0;
	pkt->parsed->sum = 0;
}

/* Behind such a stage: the packet has the header as it is. */
static __always_inline void emptcp_take_header(const struct emptcp_handle *pkt)
{
	const void *tcp = emptcp_parsed_bytes(pkt, pkt->parsed->l4, sizeof(struct tcphdr));

	if (tcp)
		emptcp_copy_header(tcp, pkt->parsed);
}

#endif
