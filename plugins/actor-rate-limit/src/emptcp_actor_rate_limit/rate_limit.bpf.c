/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include <emptcp/actor.h>
#include <emptcp/address.h>
#include <emptcp/socket.h>

enum per {
	PER_SUBFLOW = 0,
	PER_POLICY = 1,
	PER_DEV = 2,
	PER_CONNECTION = 3,
};

enum mode {
	AUTO = 0,
	PACING = 1,
	POLICE = 2,
	MARK = 3,
	WINDOW = 4,
};

struct rate_limit {
	__u64 rate;	/* bytes per second */
	__u64 stage_id; /* by core */
	__u32 burst;	/* microseconds */
	__u8 per;
	__u8 mode;
	__u8 reserved[2];
};

/* Why the last packet that an end sent was left alone; emptcp_actor_rate_limit.coverage reads it. */
enum missed {
	NOT_MISSED = 0,
	NOT_OURS = 1,	   /* pacing: its socket is elsewhere */
	RTT_UNKNOWN = 2,   /* window: the connection is older than the policy, its socket is elsewhere */
	SCALE_UNKNOWN = 3, /* window: likewise */
};

/* Pairs are by the end that sends. emptcp_actor_rate_limit.hooks writes the first word. */
struct rate_limit_state {
	__u32 wanted[2]; /* bytes per second; 0: nothing is wanted, EMPTCP_UNPACED: as it was before us */
	__u32 paced[2];	 /* what we set, 0: nothing */
	__u32 before[2]; /* what we found */
	__u64 syn_at;	 /* of a handshake under way, CLOCK_MONOTONIC */
	__u32 rtt;	 /* microseconds, 0: unknown */
	__u8 missed[2];	 /* enum missed */
	__u8 reserved[2];
	__u64 due[2];	   /* when all that was let through would be sent at the rate, CLOCK_MONOTONIC */
	__u32 unsent[2];   /* TCP_NOTSENT_LOWAT, as we found it */
	__u32 draining[2]; /* since when it takes nothing new, in milliseconds; 0: it does */
};

#define LONGEST_DRAIN 1000 /* milliseconds */
#define LEAST_UNSENT  4096 /* bytes: no less than two segments */

/* For `per` policy and dev: whose packets run on several CPUs. */
struct bucket_key {
	__u64 stage;
	__u32 hook;
	__u32 device; /* ifindex, 0 for a policy as a whole */
};

struct bucket {
	struct bpf_spin_lock lock;
	__u32 reserved;
	__u64 due;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct bucket_key);
	__type(value, struct bucket);
} rate_limit_buckets SEC(".maps");

/* A subflow that passes a stage by window, of a connection that has others which don't: its windows stay.
 * emptcp_actor_rate_limit.parted writes it, on hosts with the sockets. */
struct refused_key {
	__u64 stage;
	__u32 netns; /* as emptcp_pkt.netns */
	__u32 hook;
	struct emptcp_key subflow;
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct refused_key);
	__type(value, __u32); /* the connection's token */
} rate_limit_refused SEC(".maps");

/*
 * The virtual scheduling algorithm (ITU-T I.371): `due` runs ahead of the clock by what was let through. Past
 * the burst a packet is too much. It counts as let through also when it is not what is dropped.
 */
static __always_inline bool too_much(__u64 *due, __u64 now, __u64 burst, __u64 cost)
{
	__u64 start = *due > now ? *due : now;

	if (start - now > burst)
		return true;
	*due = start + cost;
	return false;
}

static __always_inline bool shared_too_much(const struct emptcp_handle *pkt, const struct rate_limit *param,
					    __u64 now, __u64 burst, __u64 cost)
{
	struct bucket_key key = {.stage = param->stage_id, .hook = pkt->parsed->hook};
	const struct bucket fresh = {};
	struct bucket *bucket;
	bool answer;

	if (param->per == PER_DEV)
		key.device = pkt->backend == EMPTCP_XDP ? ((struct xdp_md *)pkt->ctx)->ingress_ifindex
							: ((struct __sk_buff *)pkt->ctx)->ifindex;
	bucket = bpf_map_lookup_elem(&rate_limit_buckets, &key);
	if (!bucket) {
		bpf_map_update_elem(&rate_limit_buckets, &key, &fresh, BPF_NOEXIST);
		bucket = bpf_map_lookup_elem(&rate_limit_buckets, &key);
		if (!bucket)
			return false;
	}
	bpf_spin_lock(&bucket->lock);
	answer = too_much(&bucket->due, now, burst, cost);
	bpf_spin_unlock(&bucket->lock);
	return answer;
}

/* Whether our host has the socket that sent this packet. */
static __always_inline bool is_ours(const struct emptcp_handle *pkt)
{
	return pkt->backend == EMPTCP_TC && pkt->parsed->hook == EMPTCP_EGRESS &&
	       ((struct __sk_buff *)pkt->ctx)->sk;
}

static __always_inline int police(const struct emptcp_handle *pkt, const struct rate_limit *param,
				  struct rate_limit_state *state)
{
	__u64 now = emptcp_now(), burst = (__u64)param->burst * 1000;
	__u64 cost = (__u64)emptcp_wire_bytes(pkt) * 1000000000 / param->rate;
	bool much;

	if (param->per == PER_SUBFLOW)
		much = too_much(emptcp_source(pkt) ? &state->due[1] : &state->due[0], now, burst, cost);
	else
		much = shared_too_much(pkt, param, now, burst, cost);
	/* What has no payload is what makes connections, and says what arrived: dropping it saves nothing. */
	if (!much || !pkt->parsed->payload_len)
		return EMPTCP_NEXT;
	if (param->mode == MARK && emptcp_mark_ce(pkt) == EMPTCP_ECN_MARKED)
		return EMPTCP_NEXT;
	return EMPTCP_DROP;
}

static __always_inline void note_missed(const struct emptcp_handle *pkt, struct rate_limit_state *state,
					enum missed missed)
{
	state->missed[emptcp_source(pkt) & 1] = missed;
}

static __always_inline bool is_refused(const struct emptcp_handle *pkt, const struct rate_limit *param)
{
	const struct refused_key key = {
		.stage = param->stage_id,
		.netns = pkt->parsed->netns,
		.hook = pkt->parsed->hook,
		.subflow = pkt->parsed->key,
	};

	return bpf_map_lookup_elem(&rate_limit_refused, &key);
}

/* Let the receiver offer no more than what the rate takes in a round trip. */
static __always_inline int window(const struct emptcp_handle *pkt, const struct rate_limit *param,
				  struct rate_limit_state *state)
{
	const struct tcphdr *tcp = emptcp_tcp(pkt);
	__u64 bytes = param->rate * state->rtt / 1000000;
	bool capped;

	/* Windows of SYNs stay, and the handshake has yet to tell. */
	if (tcp->syn)
		return EMPTCP_NEXT;
	if (is_refused(pkt, param)) {
		note_missed(pkt, state, NOT_MISSED);
		return emptcp_skip(pkt, EMPTCP_REFUSED);
	}
	if (!state->rtt) {
		note_missed(pkt, state, RTT_UNKNOWN);
		return emptcp_skip(pkt, EMPTCP_UNKNOWN_STATE);
	}
	capped = emptcp_cap_window(pkt, tcp, bytes < ~0U ? bytes : ~0U);
	note_missed(pkt, state,
		    !capped && pkt->parsed->reason == EMPTCP_UNKNOWN_STATE ? SCALE_UNKNOWN : NOT_MISSED);
	return EMPTCP_NEXT;
}

EMPTCP_ACTOR_STATE(rate_limit, pkt, struct rate_limit, param, struct rate_limit_state, state)
{
	__u32 mode = param->mode;

	if (!param->rate)
		return EMPTCP_NEXT;
	if (mode == AUTO && param->per == PER_CONNECTION)
		mode = WINDOW;
	else if (mode == AUTO)
		mode = param->per == PER_SUBFLOW && is_ours(pkt) ? PACING : POLICE;
	if (mode == WINDOW)
		return window(pkt, param, state);
	if (mode != PACING)
		return police(pkt, param, state);
	if (!is_ours(pkt)) {
		note_missed(pkt, state, NOT_OURS);
		return emptcp_skip(pkt, EMPTCP_REFUSED);
	}
	note_missed(pkt, state, NOT_MISSED);
	state->wanted[emptcp_source(pkt) & 1] =
		param->rate < EMPTCP_UNPACED ? param->rate : EMPTCP_UNPACED - 1;
	return EMPTCP_NEXT;
}

/*
 * A handshake takes a round trip wherever it passes: from the SYN to the ACK that answers the SYN/ACK, both
 * of the end that opens. Core begins the state anew with each SYN.
 */
EMPTCP_COMPANION(rate_limit_handshake, pkt, struct rate_limit_state, state)
{
	__u32 flags = pkt->parsed->tcp_flags & (EMPTCP_SYN | EMPTCP_ACK | EMPTCP_RST);

	if (flags == EMPTCP_SYN) {
		state->syn_at = emptcp_now();
	} else if (state->syn_at && flags == EMPTCP_ACK && pkt->flow &&
		   pkt->flow->opener == pkt->parsed->direction + 1) {
		state->rtt = (emptcp_now() - state->syn_at) / 1000;
		state->syn_at = 0;
	}
}

/*
 * What the socket was given before goes out at the new rate: a megabyte that a fast path sent in a tenth of a
 * second takes one of 1 Mbit/s eight, and the receiver can't use what the other paths bring meanwhile (RFC
 * 8684, section 3.3.4). So a socket with more than a quarter of a second's worth takes nothing new until it
 * has less, and is paced then.
 */
static __always_inline bool drained(struct emptcp_socket *sock, struct rate_limit_state *state, __u32 end)
{
	__u32 rate = state->wanted[end], now = emptcp_now() / 1000000;

	if (sock->queued <= rate / 4 || (state->paced[end] && rate > state->paced[end]))
		return true;
	if (!state->draining[end]) {
		if (!emptcp_keep_unsent(sock, 1))
			return true;
		state->draining[end] = now | 1;
	} else if (now - state->draining[end] > LONGEST_DRAIN) {
		return true;
	}
	emptcp_again(sock);
	return false;
}

static __always_inline void pace(struct emptcp_socket *sock, struct rate_limit_state *state, __u32 end)
{
	__u32 rate = state->wanted[end];

	if (!rate || (rate == state->paced[end] && !state->draining[end]))
		return;
	if (rate == EMPTCP_UNPACED) {
		if (state->paced[end] || state->draining[end]) {
			emptcp_keep_unsent(sock, state->unsent[end]);
			if (state->paced[end] && !emptcp_pace(sock, state->before[end]))
				return;
		}
		state->paced[end] = 0;
		state->draining[end] = 0;
		state->wanted[end] = 0;
		return;
	}
	if (!state->paced[end] && !state->draining[end]) {
		state->before[end] = sock->pacing;
		state->unsent[end] = sock->unsent;
	}
	if (!drained(sock, state, end) || !emptcp_pace(sock, rate))
		return;
	/* A twentieth of a second's worth: what waits behind the rate holds up what other subflows send. */
	emptcp_keep_unsent(sock, rate / 20 > LEAST_UNSENT ? rate / 20 : LEAST_UNSENT);
	state->paced[end] = rate;
	state->draining[end] = 0;
}

EMPTCP_SOCKET_COMPANION(rate_limit_socket, sock, struct rate_limit_state, state)
{
	if (sock->rtt_min && sock->rtt_min != ~0U)
		state->rtt = sock->rtt_min;
	if (sock->direction)
		pace(sock, state, 1);
	else
		pace(sock, state, 0);
}
