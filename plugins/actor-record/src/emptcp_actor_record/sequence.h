/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Size, retransmissions and reordering, by the subflow's sequence numbers.
 *
 * A packet with data is late when it begins before the end of all that was seen. Whether it was sent again,
 * or only overtaken, is told by the hole that it fills:
 *
 *   - It fills none: its bytes were seen before. It was sent again.
 *   - It has a later timestamp (RFC 7323) than the packet that passed the hole over. Nobody knows of a loss
 *     before a round trip is over, so this one was sent in answer to it: it was sent again.
 *   - It has the same one, or an earlier one: it was sent before, or at the same time. It was overtaken.
 *   - Without timestamps: as old as RECORD_LATE, it was sent again.
 */
#ifndef RECORD_SEQUENCE_H
#define RECORD_SEQUENCE_H

#include "flow.h"

#include <emptcp/address.h>

/* Microseconds, within which a packet without timestamps is taken for an overtaken one. */
#define RECORD_LATE 3000
/* No window is larger (RFC 7323, section 2.3), so nothing that is further away is of this subflow. */
#define RECORD_FARTHEST (1 << 30)
/* Nanoseconds without a packet after which another stage may follow the sequence numbers. */
#define RECORD_SILENCE 1000000000ULL

/* A packet's data by the subflow's sequence numbers. */
struct record_segment {
	__u32 start;
	__u32 end;
	__u32 stamp; /* TSval */
	__u32 at;    /* microseconds */
	__u32 stamped;
};

enum met {
	FILLED = 1 << 0,   /* a hole */
	ANSWERED = 1 << 1, /* one that was there before this packet was sent */
};

/* A walk over the holes of one direction: what it is given, what it found, the hole that it leaves. */
struct record_walk {
	struct record_key key;
	__u32 end;
	struct record_segment seen;
	struct record_hole left;
	__u32 place;
	__u32 met; /* enum met */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct record_walk);
} record_walks SEC(".maps");

static __always_inline struct record_walk *record_walk(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&record_walks, &first);
}

/* Whether a sequence number is behind another one. */
static __always_inline bool is_behind(__u32 one, __u32 other)
{
	return (__s32)(one - other) > 0;
}

/* Whether the packet that fills the hole was sent again. */
static __always_inline bool answers(const struct record_segment *seen, const struct record_hole *hole)
{
	if (seen->stamped)
		return is_behind(seen->stamp, hole->stamp);
	return seen->at - hole->at >= RECORD_LATE;
}

/* Take the segment's bytes out of a hole that has some of them. It lies within one at most. */
static __always_inline void fill(struct record_walk *walk, struct record_hole *hole)
{
	const struct record_segment *seen = &walk->seen;
	bool before = is_behind(seen->start, hole->start), after = is_behind(hole->end, seen->end);

	walk->met |= answers(seen, hole) ? FILLED | ANSWERED : FILLED;
	if (before && after) {
		walk->left = *hole;
		walk->left.start = seen->end;
	}
	if (before)
		hole->end = seen->start;
	else
		hole->start = after ? seen->end : hole->end;
}

static __always_inline void keep_hole(struct record_way *way, struct record_walk *walk)
{
	if (walk->left.start == walk->left.end)
		return;
	if (walk->place == HOLES)
		walk->place = way->oldest++;
	way->holes[walk->place & (HOLES - 1)] = walk->left;
}

/*
 * Fill the holes that the packet fills, and keep the one that it leaves. A global function, which the
 * verifier goes through once for all stages, and all that it works with in memory: else it goes every way
 * through the loop once more for each number that it knows.
 */
__weak __noinline int record_fill_holes(void)
{
	struct record_walk *walk = record_walk();
	struct record_flow *record;
	struct record_way *way;

	if (!walk)
		return 0;
	record = bpf_map_lookup_elem(&record_flows, &walk->key);
	if (!record)
		return 0;
	way = walk->end ? &record->way[1] : &record->way[0];
	walk->place = HOLES;
	walk->met = 0;
	for (__u32 n = 0; n < HOLES; n++) {
		struct record_hole *hole = &way->holes[n];

		asm volatile("" ::: "memory");
		if (hole->start == hole->end)
			walk->place = n;
		else if (is_behind(walk->seen.end, hole->start) && is_behind(hole->end, walk->seen.start))
			fill(walk, hole);
	}
	keep_hole(way, walk);
	return walk->met;
}

/* Walk over the holes with a segment that does not follow what was seen: `ahead` bytes behind it, or late. */
static __always_inline __u32 walk_holes(const struct emptcp_handle *pkt, const struct record_segment *seen,
					__s32 ahead)
{
	struct record_walk *walk = record_walk();

	if (!walk)
		return 0;
	walk->key = record_key(pkt);
	walk->end = emptcp_source(pkt);
	walk->seen = *seen;
	walk->left = (struct record_hole){.stamp = seen->stamp, .at = seen->at};
	if (ahead > 0) {
		walk->left.start = seen->start - ahead;
		walk->left.end = seen->start;
	}
	return record_fill_holes();
}

static __always_inline void note_late(const struct emptcp_handle *pkt, struct record_way *way, __u32 met,
				      __u32 extent)
{
	__u32 packets = emptcp_wire_packets(pkt);

	if (!(met & FILLED) || met & ANSWERED) {
		__sync_fetch_and_add(&way->retransmitted, packets);
		return;
	}
	__sync_fetch_and_add(&way->reordered, packets);
	if (extent > way->extent)
		way->extent = extent;
}

static __always_inline void note_segment(const struct emptcp_handle *pkt, struct record_way *way,
					 const struct record_segment *seen)
{
	__s32 ahead = seen->start - way->next;
	__u32 met;

	if (ahead >= RECORD_FARTHEST || ahead <= -RECORD_FARTHEST)
		return;
	if (ahead) {
		met = walk_holes(pkt, seen, ahead);
		if (ahead < 0)
			note_late(pkt, way, met, -ahead);
	}
	if (is_behind(seen->end, way->next)) {
		way->size += seen->end - way->next;
		way->next = seen->end;
	}
}

/*
 * A packet that passes two stages, on a router or under two policies, is not sent again: one stage follows
 * the numbers, which is the first one on the packets' way. Another one takes over when that one is gone.
 */
static __always_inline bool is_watcher(struct record_way *way, __u64 stage, __u64 now)
{
	if (way->watcher != stage && way->watcher && now - way->watched_at < RECORD_SILENCE)
		return false;
	way->watcher = stage;
	way->watched_at = now;
	return true;
}

static __always_inline void follow_sequence(const struct emptcp_handle *pkt, __u64 stage_id,
					    struct record_way *way)
{
	const struct emptcp_timestamps *stamps = emptcp_timestamps(pkt);
	const struct tcphdr *tcp = emptcp_tcp(pkt);
	__u32 flags = pkt->parsed->tcp_flags;
	__u64 now = emptcp_now();
	struct record_segment seen = {.at = now / 1000};

	if (flags & EMPTCP_RST || !is_watcher(way, stage_id << 1 | pkt->parsed->hook, now))
		return;
	seen.start = bpf_ntohl(tcp->seq) + (flags & EMPTCP_SYN ? 1 : 0);
	seen.end = seen.start + pkt->parsed->payload_len;
	if (stamps) {
		seen.stamped = 1;
		seen.stamp = bpf_ntohl(stamps->value);
	}
	if (!(way->known & BEGUN)) {
		way->next = seen.start;
		way->known |= BEGUN;
	}
	if (pkt->parsed->payload_len)
		note_segment(pkt, way, &seen);
}

#endif
