/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Records to user space: one ring buffer that core shares with every object by its name.
 *
 * An event is sent when something changed, never per packet: a full ring drops what does not fit, and counts
 * it.
 */
#ifndef EMPTCP_EVENT_H
#define EMPTCP_EVENT_H

#include <emptcp/abi.h>
#include <emptcp/bpf.h>

#define EMPTCP_EVENT_RING (256 * 1024)

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, EMPTCP_EVENT_RING);
} emptcp_events SEC(".maps");

/* Events that the ring had no room for. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} emptcp_lost SEC(".maps");

/* What stands before an event's own bytes. */
struct emptcp_event {
	__u64 time;	/* bpf_ktime_get_ns(): CLOCK_MONOTONIC */
	__u32 type;	/* as the plugin numbers its events */
	__u16 len;	/* bytes that follow */
	__u8 hook;	/* enum emptcp_hook */
	__u8 direction; /* 0: the packet was sent by key.addr[0] */
	struct emptcp_key key;
	char source[32]; /* name of the fragment that sent it, zeros behind */
	__u32 netns;	 /* low half of the cookie of the namespace that the packet passed */
};

/* Nanoseconds since the machine was started. */
EMPTCP_PUBLIC __u64 emptcp_now(void)
{
	return bpf_ktime_get_ns();
}

static __always_inline void emptcp_count_lost(void)
{
	__u32 zero = 0;
	__u64 *lost = bpf_map_lookup_elem(&emptcp_lost, &zero);

	if (lost)
		*lost += 1;
}

/*
 * Send an event about the subflow this packet belongs to. `len`: a constant, at most 128. False: the ring is
 * full. The subflow is only told to stages that read the key (manifest: reads = ["key"]).
 */
EMPTCP_PUBLIC bool emptcp_event(const struct emptcp_handle *pkt, __u32 type, const void *data, __u32 len)
{
	struct emptcp_event *event = bpf_ringbuf_reserve(&emptcp_events, sizeof(*event) + len, 0);

	if (!event) {
		emptcp_count_lost();
		return false;
	}
	event->time = emptcp_now();
	event->type = type;
	event->len = len;
	event->hook = pkt->parsed->hook;
	event->direction = pkt->parsed->direction;
	event->key = pkt->parsed->key;
	event->netns = pkt->parsed->netns;
	__builtin_memcpy(event->source, pkt->name, sizeof(event->source));
	__builtin_memcpy(event + 1, data, len);
	bpf_ringbuf_submit(event, 0);
	return true;
}

#endif
