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

static __always_inline void give(const struct emptcp_handle *pkt)
{
	struct blocked_address *address;
	struct blocked *blocked;
	struct blocked_key key;

	blocked_key_of(pkt, emptcp_source(pkt), &key);
	blocked = bpf_map_lookup_elem(&blocked_addresses, &key);
	address = blocked ? waiting(blocked) : NULL;
	if (!address)
		return;
	__builtin_memcpy(emptcp_option_space(pkt), address->option, ADD_ADDR_MAX);
	/* First: a blk_subflow behind this stage lets it pass. */
	address->given = 1;
	if (!emptcp_insert_built(pkt, address->len, EMPTCP_SAFE))
		address->given = 0;
}

/* For the hooks alone: what they announce needs an HMAC. */
struct add_subflow {
	struct emptcp_address announce;
	__u16 port;
	__u8 id;
	__u8 reserved[5];
};

EMPTCP_ACTOR(add_subflow, pkt, struct add_subflow, param)
{
	if (is_joining(pkt))
		release(pkt);
	/* A DSS shows that the connection still is MPTCP. */
	else if (emptcp_is_pure_ack(pkt) && emptcp_has(pkt, EMPTCP_DSS) && !emptcp_has(pkt, EMPTCP_ADD_ADDR))
		give(pkt);
	return EMPTCP_NEXT;
}
