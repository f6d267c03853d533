/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Gives back what blk_subflow kept back: a stored ADD_ADDR rides on the next pure ACK of its sender that has
 * room, once; a held SYN with MP_JOIN is released. On the host that has the socket the hooks give addresses
 * back in an ACK of their own, without waiting for a packet.
 */
#include "blocked.h"

/* blk_subflow's: how many entries they have is its affair. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct blocked_key);
	__type(value, struct blocked);
} blocked_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct blocked_key);
	__type(value, struct held_join);
} held_joins SEC(".maps");

/* By the end that announces, its own: the ID that its peer was told of on this subflow. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct blocked_key);
	__type(value, __u32);
} announced SEC(".maps");

/* Its data is the stage's parameters. */
enum event {
	SUBFLOW_SEEN = 1,
};

static __always_inline void release(const struct emptcp_handle *pkt)
{
	struct held_join fresh = {.released = 1}, *held;
	struct blocked_key key;

	blocked_key_of(pkt, emptcp_source(pkt), &key);
	held = bpf_map_lookup_elem(&held_joins, &key);
	if (held)
		held->released = 1;
	else
		bpf_map_update_elem(&held_joins, &key, &fresh, BPF_ANY);
}

static __always_inline struct blocked_address *waiting(struct blocked *blocked)
{
	__u32 i;

#pragma clang loop unroll(full)
	for (i = 0; i < BLOCKED_ADDRESSES; i++)
		if (blocked->address[i].len && !blocked->address[i].given)
			return &blocked->address[i];
	return NULL;
}

/* False: nothing waits. */
static __always_inline bool give(const struct emptcp_handle *pkt)
{
	struct blocked_address *address;
	struct blocked *blocked;
	struct blocked_key key;

	blocked_key_of(pkt, emptcp_source(pkt), &key);
	blocked = bpf_map_lookup_elem(&blocked_addresses, &key);
	address = blocked ? waiting(blocked) : NULL;
	if (!address)
		return false;
	__builtin_memcpy(emptcp_option_space(pkt), address->option, ADD_ADDR_MAX);
	/* First: a blk_subflow behind this stage lets it pass. */
	address->given = 1;
	if (!emptcp_insert_built(pkt, address->len, EMPTCP_SAFE))
		address->given = 0;
	return true;
}

/* What is announced in version 1 needs an HMAC, and is the hooks' affair. */
struct add_subflow {
	struct emptcp_address announce;
	__u16 port;
	__u8 id;
	__u8 reserved[5];
};

/* Version 0 has the address in the plain, and the IP version where the flags are (RFC 6824, section 3.4.1).
 */
static __always_inline bool announce_plain(const struct emptcp_handle *pkt, const struct add_subflow *param)
{
	const __be32 *word = param->announce.word;
	bool four = !word[0] && !word[1] && word[2] == bpf_htonl(0xffff);
	__u32 len = four ? sizeof(struct emptcp_add_addr4) : sizeof(struct emptcp_add_addr6);
	__u8 *option = emptcp_option_space(pkt);

	option[0] = EMPTCP_KIND_MPTCP;
	option[2] = EMPTCP_ADD_ADDR << 4 | (four ? 4 : 6);
	option[3] = param->id;
	if (four)
		__builtin_memcpy(option + 4, word + 3, 4);
	else
		__builtin_memcpy(option + 4, word, 16);
	if (param->port) {
		option[four ? 8 : 20] = param->port >> 8;
		option[four ? 9 : 21] = param->port;
		len += 2;
	}
	option[1] = len;
	return emptcp_insert_built(pkt, len, EMPTCP_SAFE);
}

/* Once on each subflow: by this packet in version 0, else by whoever has the connection's keys. */
static __always_inline void announce(const struct emptcp_handle *pkt, const struct add_subflow *param)
{
	bool plain = pkt->flow && pkt->flow->version == 1; /* version + 1 */
	__u32 id = param->id, *known;
	struct blocked_key key;

	blocked_key_of(pkt, emptcp_source(pkt), &key);
	known = bpf_map_lookup_elem(&announced, &key);
	if (known && *known == id)
		return;
	if (plain ? announce_plain(pkt, param) : emptcp_event(pkt, SUBFLOW_SEEN, param, sizeof(*param)))
		bpf_map_update_elem(&announced, &key, &id, BPF_ANY);
}

/* A subflow begins: what was announced on the same ports was so on another one. */
static __always_inline void begin(const struct emptcp_handle *pkt)
{
	struct blocked_key key;

	blocked_key_of(pkt, emptcp_source(pkt), &key);
	bpf_map_delete_elem(&announced, &key);
}

EMPTCP_ACTOR(add_subflow, pkt, struct add_subflow, param)
{
	bool announces = param->id && pkt->parsed->hook == EMPTCP_EGRESS;

	if (announces && pkt->parsed->tcp_flags & EMPTCP_SYN)
		begin(pkt);
	if (is_joining(pkt))
		release(pkt);
	/* A DSS shows that the connection still is MPTCP. */
	else if (emptcp_is_pure_ack(pkt) && emptcp_has(pkt, EMPTCP_DSS) && !emptcp_has(pkt, EMPTCP_ADD_ADDR))
		if (!give(pkt) && announces)
			announce(pkt, param);
	return EMPTCP_NEXT;
}
