/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include <emptcp/actor.h>
#include <emptcp/redirect.h>

#define LINKS	 8
#define SUBFLOWS 16384
#define MIXER	 0x9e3779b97f4a7c15ULL
#define SEED	 0x73746565 /* not the one of sample: a share of the subflows is spread over all links */

enum by {
	BY_INDEX = 0,
	BY_HASH = 1,
	BY_LINK = 2,
};

enum mode {
	MODE_NEXTHOP = 0,
	MODE_PORT = 1,
	MODE_MARK = 2,
};

struct steer {
	__u32 to[LINKS];
	__u32 to_len;
	__u32 mark;
	__u32 mask;
	__u8 by;   /* enum by */
	__u8 mode; /* enum mode */
	__u8 link; /* by BY_LINK */
	__u8 reserved;
};

/* A subflow's place in its connection, and what tells that its SYN is sent again and not another one's. */
struct place {
	__u32 token;
	__u32 nonce;
	__u32 index;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SUBFLOWS);
	__type(key, struct emptcp_key);
	__type(value, struct place);
} steer_places SEC(".maps");

/* The token that MP_JOINs name -> subflows that joined so. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SUBFLOWS);
	__type(key, __u32);
	__type(value, __u32);
} steer_joined SEC(".maps");

/* Counted without a lock: an atomic addition that tells the sum needs Linux 5.12. Two that join a connection
 * in the same moment, on two CPUs, may have the same number; the one after them has another. */
static __always_inline __u32 next_index(__u32 token)
{
	const __u32 none = 0;
	__u32 *joined = bpf_map_lookup_elem(&steer_joined, &token);

	if (!joined) {
		bpf_map_update_elem(&steer_joined, &token, &none, BPF_NOEXIST);
		joined = bpf_map_lookup_elem(&steer_joined, &token);
		if (!joined)
			return 1;
	}
	__sync_fetch_and_add(joined, 1);
	return READ_ONCE(*joined);
}

/* Every subflow's SYN, whether a policy selects it or not: also of those that the peer opens. */
EMPTCP_COMPANION(steer_syn, pkt, void, none)
{
	const struct emptcp_key *key = &pkt->parsed->key;
	const struct emptcp_mp_join_syn *join;
	struct place place = {}, *known;

	if ((pkt->parsed->tcp_flags & (EMPTCP_SYN | EMPTCP_ACK)) != EMPTCP_SYN)
		return;
	join = EMPTCP_OPTION(pkt, EMPTCP_MP_JOIN, struct emptcp_mp_join_syn);
	if (join) {
		place.token = join->token;
		place.nonce = join->nonce;
		known = bpf_map_lookup_elem(&steer_places, key);
		if (known && known->token == place.token && known->nonce == place.nonce)
			return;
		place.index = next_index(place.token);
	}
	bpf_map_update_elem(&steer_places, key, &place, BPF_ANY);
}

static __always_inline __u64 mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * MIXER;
	return hash ^ hash >> 32;
}

/* As chosen.py tells it in Python. */
static __always_inline __u32 hash_of(const struct emptcp_key *key)
{
	const __be32 *word = key->addr[0];
	__u64 hash = SEED;

#pragma unroll
	for (int i = 0; i < 8; i += 2)
		hash = mix(hash, (__u64)bpf_ntohl(word[i]) << 32 | bpf_ntohl(word[i + 1]));
	hash = mix(hash, (__u32)bpf_ntohs(key->port[0]) << 16 | bpf_ntohs(key->port[1]));
	return hash * MIXER >> 32;
}

/* Which number the subflow has, of which the remainder chooses the link; false: its SYN was not seen. */
static __always_inline bool find_number(const struct emptcp_handle *pkt, const struct steer *param,
					__u32 *number)
{
	const struct place *place;

	if (param->by == BY_HASH) {
		*number = hash_of(&pkt->parsed->key);
		return true;
	}
	if (param->by == BY_LINK) {
		*number = param->link;
		return true;
	}
	place = bpf_map_lookup_elem(&steer_places, &pkt->parsed->key);
	if (!place)
		return false;
	*number = place->index;
	return true;
}

static __always_inline int leave_by_port(const struct emptcp_handle *pkt, __u32 ifindex,
					 const struct emptcp_device *link)
{
	if (link->type != EMPTCP_DEVICE_ETHERNET)
		return emptcp_skip(pkt, EMPTCP_NO_LINK);
	if (!emptcp_set_source(pkt, link->address))
		return EMPTCP_NEXT;
	return emptcp_redirect(pkt, ifindex);
}

/* What comes in here would have been routed, so it costs a hop; what goes out has been already. */
static __always_inline int leave_by_nexthop(const struct emptcp_handle *pkt, __u32 ifindex)
{
	struct bpf_redir_neigh to;

	if (pkt->parsed->flags & EMPTCP_PKT_VLAN || !emptcp_find_next_hop(pkt, ifindex, &to))
		return emptcp_skip(pkt, EMPTCP_NO_LINK);
	if (pkt->parsed->hook == EMPTCP_INGRESS && !emptcp_take_hop(pkt))
		return EMPTCP_NEXT;
	return emptcp_redirect_neigh(pkt, ifindex, &to);
}

EMPTCP_ACTOR(steer, pkt, struct steer, param)
{
	struct emptcp_device link;
	__u32 number, ifindex;

	if (pkt->backend != EMPTCP_TC || !param->to_len)
		return emptcp_skip(pkt, EMPTCP_REFUSED);
	/* A fragment's other pieces are not parsed, and would go another way. */
	if (pkt->parsed->no_modify == EMPTCP_FRAGMENT)
		return emptcp_skip(pkt, EMPTCP_FRAGMENT);
	if (!find_number(pkt, param, &number))
		return emptcp_skip(pkt, EMPTCP_UNKNOWN_STATE);
	number %= param->to_len;
	ifindex = param->to[number & (LINKS - 1)];
	if (!emptcp_find_device(pkt, ifindex, &link) || !link.up)
		return emptcp_skip(pkt, EMPTCP_NO_LINK);
	if (param->mode == MODE_MARK) {
		emptcp_mark(pkt, param->mark + number, param->mask);
		return EMPTCP_NEXT;
	}
	if (ifindex == ((struct __sk_buff *)pkt->ctx)->ifindex)
		return pkt->parsed->hook == EMPTCP_EGRESS ? EMPTCP_NEXT : emptcp_skip(pkt, EMPTCP_NO_LINK);
	if (emptcp_wire_longest(pkt) > link.mtu)
		return emptcp_skip(pkt, EMPTCP_TOO_LONG);
	return param->mode == MODE_PORT ? leave_by_port(pkt, ifindex, &link) : leave_by_nexthop(pkt, ifindex);
}
