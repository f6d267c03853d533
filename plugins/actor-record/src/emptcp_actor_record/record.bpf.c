/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include "goodput.h"
#include "sequence.h"

#include <emptcp/actor.h>
#include <emptcp/address.h>

enum what {
	PACKETS = 1 << 0,
	BYTES = 1 << 1,
	RTT = 1 << 2,
	RTT_HISTOGRAM = 1 << 3,
	RETRANSMISSIONS = 1 << 4,
	REORDERING = 1 << 5,
	SIZE = 1 << 6,
	GOODPUT = 1 << 7,
	WINDOW = 1 << 8,
	BY_RTT = RTT | RTT_HISTOGRAM,
	BY_SEQUENCE = RETRANSMISSIONS | REORDERING | SIZE,
	IN_RECORD = RTT_HISTOGRAM | BY_SEQUENCE | GOODPUT | WINDOW, /* not in the slot */
};

struct record {
	__u64 stage_id; /* by core */
	__u32 what;
	__u32 reserved;
};

/* Per end, the one that sent: packets and bytes from the IP header on. emptcp_actor_record.tracks reads it.
 */
struct record_state {
	__u64 packets[2];
	__u64 bytes[2];
	__u64 rtt_sum; /* microseconds, as all of rtt */
	__u32 rtt_samples;
	__u32 rtt_min;
	__u32 rtt_last;
	__u32 noted; /* TSval that was sent and waits for its echo */
	__u64 noted_at;
	__u64 heard_at; /* when the last packet came in */
	__u8 wanted;	/* some ingress stage records the RTT */
	__u8 waiting;
	__u8 noted_data; /* the noted packet had payload: the peer answers at once */
	__u8 reserved[5];
};

static __always_inline void count(const struct emptcp_handle *pkt, __u32 what, struct record_state *state)
{
	__u32 from = emptcp_source(pkt);

	if (what & PACKETS)
		__sync_fetch_and_add(&state->packets[from], emptcp_wire_packets(pkt));
	if (what & BYTES)
		__sync_fetch_and_add(&state->bytes[from], emptcp_wire_bytes(pkt));
}

static __always_inline void note_rtt(struct record_flow *record, __u32 rtt)
{
#pragma unroll
	for (__u32 n = 0; n < RTTS - 1; n++) {
		if (rtt < 128U << n) {
			record->rtts[n]++;
			return;
		}
	}
	record->rtts[RTTS - 1]++;
}

static __always_inline void sample(struct record_state *state, struct record_flow *record, __u64 now)
{
	__u32 rtt = (now - state->noted_at) / 1000;

	/*
	 * The peer answers data at once, but has its own time to go on after a pure ACK. That the answer came
	 * at once is only sure while packets come in all the time: the gap before it bounds the error.
	 */
	if (!state->noted_data && (now - state->heard_at) / 1000 > rtt / 8)
		return;
	state->rtt_last = rtt;
	state->rtt_sum += rtt;
	if (!state->rtt_samples || rtt < state->rtt_min)
		state->rtt_min = rtt;
	state->rtt_samples++;
	if (record)
		note_rtt(record, rtt);
}

static __always_inline void measure(const struct emptcp_handle *pkt, struct record_state *state,
				    struct record_flow *record)
{
	const struct emptcp_timestamps *option = emptcp_timestamps(pkt);
	__u64 now = emptcp_now();
	__u32 echo;

	state->wanted = 1;
	if (option && state->waiting) {
		echo = bpf_ntohl(option->echo);
		if (echo == state->noted)
			sample(state, record, now);
		/* An echo of something later: the noted one was skipped, and its time would be too long. */
		if ((__s32)(echo - state->noted) >= 0)
			state->waiting = 0;
	}
	state->heard_at = now;
}

/* The window that the packet's sender offers, in bytes. The one of a SYN is never scaled. */
static __always_inline bool note_window(const struct emptcp_handle *pkt, struct record_way *way)
{
	const struct tcphdr *tcp = emptcp_tcp(pkt);
	__u32 scale, bytes;

	if (pkt->parsed->tcp_flags & (EMPTCP_SYN | EMPTCP_RST))
		return true;
	scale = emptcp_source(pkt) ? pkt->flow->wscale[1] : pkt->flow->wscale[0];
	if (!scale)
		return false;
	bytes = (__u32)bpf_ntohs(tcp->window) << ((scale - 1) & 0xf);
	way->window_last = bytes;
	if (!(way->known & OFFERED) || bytes < way->window_min)
		way->window_min = bytes;
	if (bytes > way->window_max)
		way->window_max = bytes;
	way->known |= OFFERED;
	return true;
}

/* False: the window's scale is not known. */
static __always_inline bool follow(const struct emptcp_handle *pkt, const struct record *param,
				   struct record_flow *record)
{
	struct record_way *way = emptcp_source(pkt) ? &record->way[1] : &record->way[0];

	if (param->what & BY_SEQUENCE)
		follow_sequence(pkt, param->stage_id, way);
	if (param->what & GOODPUT)
		follow_goodput(pkt, way);
	return !(param->what & WINDOW) || note_window(pkt, way);
}

EMPTCP_ACTOR_STATE(record, pkt, struct record, param, struct record_state, state)
{
	__u32 what = param->what;
	struct record_flow *record = NULL;

	count(pkt, what, state);
	if (what & IN_RECORD)
		record = record_of(pkt, what);
	if (what & BY_RTT && pkt->parsed->hook == EMPTCP_INGRESS)
		measure(pkt, state, what & RTT_HISTOGRAM ? record : NULL);
	if (record && pkt->flow && !follow(pkt, param, record))
		return emptcp_skip(pkt, EMPTCP_UNKNOWN_STATE);
	return EMPTCP_NEXT;
}

/* On egress: notes when the first packet with a new TSval leaves, one at a time. */
EMPTCP_COMPANION(record_sent, pkt, struct record_state, state)
{
	const struct emptcp_timestamps *option;
	__u32 value;

	if (!state->wanted || state->waiting)
		return;
	option = emptcp_timestamps(pkt);
	if (!option)
		return;
	value = bpf_ntohl(option->value);
	if (value == state->noted)
		return;
	state->noted = value;
	state->noted_at = emptcp_now();
	state->noted_data = pkt->parsed->payload_len != 0;
	state->waiting = 1;
}
