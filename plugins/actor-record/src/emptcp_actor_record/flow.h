/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What record keeps of a subflow beside its slot in the flow table: more than the slots of all plugins have
 * room for. One entry per subflow and network namespace, made when a stage asks for something of it.
 */
#ifndef RECORD_FLOW_H
#define RECORD_FLOW_H

#include <emptcp/actor.h>

/* As many as core remembers subflows. 528 bytes each, and the least recently used one gives way. */
#define RECORD_FLOWS 16384

#define HOLES 8
#define RTTS  16

/* Bytes that were passed over: what was sent behind them was seen before them. */
struct record_hole {
	__u32 start;
	__u32 end;   /* as start: there is no hole */
	__u32 stamp; /* TSval of the packet that passed them over, 0 without timestamps */
	__u32 at;    /* when, microseconds */
};

enum known {
	BEGUN = 1 << 0,	  /* `next` is there */
	MAPPED = 1 << 1,  /* `dsn_first` and `dsn_next` are */
	WIDE = 1 << 2,	  /* and their upper halves: a number of 8 bytes was seen */
	OFFERED = 1 << 3, /* the windows are */
};

/* What one end sent. emptcp_actor_record.tracks reads it. */
struct record_way {
	__u64 size;	 /* bytes by subflow sequence numbers */
	__u64 dsn_first; /* data sequence numbers: the first one seen, and the one behind the last */
	__u64 dsn_next;
	__u64 goodput;	/* bytes that mappings brought and none before them on this subflow */
	__u64 first_at; /* when the first of these came, and the last: nanoseconds */
	__u64 last_at;
	__u64 watcher;	  /* the stage and hook that follow the sequence numbers */
	__u64 watched_at; /* when it last did */
	__u32 next;	  /* the sequence number behind all that was seen */
	__u32 retransmitted;
	__u32 reordered;
	__u32 extent; /* bytes by which the latest packet was late */
	__u32 window_last;
	__u32 window_min;
	__u32 window_max;
	__u16 lead;  /* bytes of data that came with an MP_CAPABLE */
	__u8 known;  /* enum known */
	__u8 oldest; /* the hole that gives way */
	struct record_hole holes[HOLES];
};

struct record_flow {
	__u64 since; /* the flow table entry's: of another one, this is of a connection before */
	__u32 asked; /* enum what, of all stages */
	__u32 reserved;
	__u32 rtts[RTTS]; /* how many were below 128 << n microseconds; the last one: all others */
	struct record_way way[2];
};

struct record_key {
	struct emptcp_key flow;
	__u32 netns;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, RECORD_FLOWS);
	__type(key, struct record_key);
	__type(value, struct record_flow);
} record_flows SEC(".maps");

/* Too large for the stack. */
static const volatile struct record_flow record_fresh;

static __always_inline struct record_key record_key(const struct emptcp_handle *pkt)
{
	struct record_key key = {.netns = pkt->parsed->netns};

	__builtin_memcpy(&key.flow, &pkt->parsed->key, sizeof(key.flow));
	return key;
}

/* The entry of the packet's subflow, begun anew where it is of a connection before; NULL: no room. */
static __always_inline struct record_flow *record_of(const struct emptcp_handle *pkt, __u32 what)
{
	__u64 since = pkt->flow ? pkt->flow->since : 0;
	struct record_key key = record_key(pkt);
	struct record_flow *found;

	found = bpf_map_lookup_elem(&record_flows, &key);
	if (!found || found->since != since) {
		bpf_map_update_elem(&record_flows, &key, (const void *)&record_fresh, BPF_ANY);
		found = bpf_map_lookup_elem(&record_flows, &key);
		if (!found)
			return NULL;
		found->since = since;
	}
	if ((found->asked & what) != what)
		found->asked |= what;
	return found;
}

#endif
