/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Keeps subflows from coming up: ADD_ADDR is taken out of packets and stored, SYNs with MP_JOIN are dropped
 * until they are released.
 *
 * A connection whose first packet after the handshake has neither a data ACK nor MP_CAPABLE falls back to
 * plain TCP (check_fully_established() in net/mptcp/options.c), and an ADD_ADDR alone passes for one. So NOPs
 * take its place only beside one of these; a pure ACK that says nothing else is dropped.
 */
#include <emptcp/redirect.h>

#include "blocked.h"

#define BLOCKED_SUBFLOWS 4096
#define REMOVE_ADDR_MAX	 11 /* bytes: eight IDs behind the head (RFC 8684, section 3.4.2) */
#define NO_DEVICE	 0x7fffffff

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, BLOCKED_SUBFLOWS);
	__type(key, struct blocked_key);
	__type(value, struct blocked);
} blocked_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, BLOCKED_SUBFLOWS);
	__type(key, struct blocked_key);
	__type(value, struct held_join);
} held_joins SEC(".maps");

/* Too large for the stack. */
static const volatile struct blocked nothing_blocked;

struct blk_subflow {
	__u8 addresses;
	__u8 joins;
	__u8 refuse;
	__u8 echo;
};

enum event {
	ADDRESS_KEPT = 1,    /* its data is the struct blocked_address */
	ADDRESS_REMOVED = 2, /* its data begins with the REMOVE_ADDR */
};

static __always_inline const struct emptcp_add_addr4 *announced(const struct emptcp_handle *pkt)
{
	const struct emptcp_add_addr4 *option = EMPTCP_OPTION(pkt, EMPTCP_ADD_ADDR, struct emptcp_add_addr4);

	return option && !(option->head.subtype_flags & EMPTCP_ADD_ADDR_ECHO) ? option : NULL;
}

/*
 * 1 if `number` is below `limit`, else 0. Without a jump, at each of which the verifier would go both ways:
 * eight places are compared one after the other. The compiler must not know what it is.
 */
static __always_inline __u64 is_below(__u64 number, __u64 limit)
{
	__u64 difference = number - limit;

	asm volatile("" : "+r"(difference));
	return difference >> 63;
}

static __always_inline __u32 is_zero(__u64 number)
{
	return is_below(number, 1);
}

/* A place of the eight, bounded by an instruction that the compiler can't take away. */
static __always_inline struct blocked_address *address_at(struct blocked *blocked, __u64 place)
{
	asm volatile("%0 &= 7" : "+r"(place));
	return &blocked->address[place];
}

/* Where the address with this ID stands; NULL: it is not stored. */
static __always_inline struct blocked_address *stored(struct blocked *blocked, __u8 id)
{
	__u32 place = BLOCKED_ADDRESSES, i;

#pragma clang loop unroll(full)
	for (i = 0; i < BLOCKED_ADDRESSES; i++) {
		const struct blocked_address *address = &blocked->address[i];
		__u32 other = (address->option[3] ^ id) | is_zero(address->len);

		place ^= (place ^ i) & -is_zero(other);
	}
	return place < BLOCKED_ADDRESSES ? address_at(blocked, place) : NULL;
}

/* Where it is to stand: a ninth address takes another one's place. */
static __always_inline struct blocked_address *room_for(struct blocked *blocked, __u8 id)
{
	__u32 place = id, i;

#pragma clang loop unroll(full)
	for (i = 0; i < BLOCKED_ADDRESSES; i++)
		place ^= (place ^ i) & -is_zero(blocked->address[i].len);
	return address_at(blocked, place);
}

/* Whether the packet's announcement is the stored one. The HMAC is, if address and port are. */
static __always_inline bool is_same(const struct emptcp_handle *pkt, const struct blocked_address *address)
{
	__u32 len = emptcp_option_len(pkt, EMPTCP_ADD_ADDR), i;
	const __u8 *option = emptcp_find(pkt, EMPTCP_ADD_ADDR, 8);
	__u32 other = len ^ address->len;

	if (!option)
		return false;
#pragma clang loop unroll(disable)
	for (i = 0; i < ADD_ADDR_MAX; i++)
		other |= (option[i] ^ address->option[i]) & -(__u32)is_below(i, len);
	return !other;
}

static __always_inline struct blocked *blocked_of(const struct emptcp_handle *pkt, bool make)
{
	struct blocked *found;
	struct blocked_key key;

	blocked_key_of(pkt, emptcp_source(pkt), &key);
	found = bpf_map_lookup_elem(&blocked_addresses, &key);
	if (found || !make)
		return found;
	bpf_map_update_elem(&blocked_addresses, &key, (const void *)&nothing_blocked, BPF_NOEXIST);
	return bpf_map_lookup_elem(&blocked_addresses, &key);
}

/* NULL: this one was given back, and may pass; or there is no memory for it. */
static __always_inline struct blocked_address *store(const struct emptcp_handle *pkt, __u8 id)
{
	struct blocked *blocked = blocked_of(pkt, true);
	struct blocked_address *address;
	const __u8 *option = emptcp_find(pkt, EMPTCP_ADD_ADDR, 8);

	if (!blocked || !option)
		return NULL;
	address = stored(blocked, id);
	if (address && address->given && is_same(pkt, address))
		return NULL;
	if (!address)
		address = room_for(blocked, id);
	__builtin_memcpy(address->option, option, ADD_ADDR_MAX);
	address->len = emptcp_option_len(pkt, EMPTCP_ADD_ADDR);
	address->given = 0;
	address->since = emptcp_now();
	return address;
}

/* Whether Linux takes the packet for one of an established subflow without its ADD_ADDR. */
static __always_inline bool stands_alone(const struct emptcp_handle *pkt)
{
	const struct emptcp_dss_head *dss = EMPTCP_OPTION(pkt, EMPTCP_DSS, struct emptcp_dss_head);

	return (dss && dss->flags & EMPTCP_DSS_ACK) || emptcp_has(pkt, EMPTCP_MP_CAPABLE);
}

static __always_inline int keep_back(const struct emptcp_handle *pkt, __u8 id, bool echo)
{
	bool only = pkt->parsed->subtypes == 1 << EMPTCP_ADD_ADDR && emptcp_is_pure_ack(pkt);
	bool alone = stands_alone(pkt);
	struct blocked_address *address;

	/* To drop a packet changes none: signed ones go too. */
	if (pkt->parsed->no_modify && !only)
		return emptcp_skip(pkt, pkt->parsed->no_modify);
	if (!alone && !only)
		return emptcp_skip(pkt, EMPTCP_UNSAFE);
	address = store(pkt, id);
	if (!address)
		return EMPTCP_NEXT;
	if (echo)
		emptcp_event(pkt, ADDRESS_KEPT, address, sizeof(*address));
	if (only)
		return EMPTCP_DROP;
	if (!emptcp_remove_option(pkt, EMPTCP_ADD_ADDR, EMPTCP_SAFE))
		address->len = 0;
	return EMPTCP_NEXT;
}

/* Whoever gets a token that it does not know answers by a RST (RFC 8684, section 3.2). */
static __always_inline int refuse(const struct emptcp_handle *pkt)
{
	const struct emptcp_mp_join_syn *join = EMPTCP_OPTION(pkt, EMPTCP_MP_JOIN, struct emptcp_mp_join_syn);
	__be32 token;

	if (join) {
		token = ~join->token;
		emptcp_rewrite_option(pkt, EMPTCP_MP_JOIN, 4, &token, sizeof(token), EMPTCP_SAFE);
	}
	return EMPTCP_NEXT;
}

/*
 * Lose a SYN as the network does. TCP learns of what is dropped as it leaves (NET_XMIT_DROP): it then tries
 * twice a second, does not back off, and has used up its attempts in five seconds (tcp_retransmit_timer()).
 * What is redirected to a device that is not there is dropped too, and counts as sent.
 */
static __always_inline int lose(const struct emptcp_handle *pkt)
{
	return pkt->parsed->hook == EMPTCP_EGRESS ? emptcp_redirect(pkt, NO_DEVICE) : EMPTCP_DROP;
}

static __always_inline int hold(const struct emptcp_handle *pkt, bool refused)
{
	struct held_join fresh = {.syns = 1}, *held;
	struct blocked_key key;

	blocked_key_of(pkt, emptcp_source(pkt), &key);
	held = bpf_map_lookup_elem(&held_joins, &key);
	if (held && held->released)
		return EMPTCP_NEXT;
	if (refused)
		return refuse(pkt);
	if (held)
		held->syns++;
	else
		bpf_map_update_elem(&held_joins, &key, &fresh, BPF_ANY);
	return lose(pkt);
}

EMPTCP_ACTOR(blk_subflow, pkt, struct blk_subflow, param)
{
	const struct emptcp_add_addr4 *option;

	if (is_joining(pkt))
		return param->joins ? hold(pkt, param->refuse) : EMPTCP_NEXT;
	option = announced(pkt);
	if (!option || !param->addresses)
		return EMPTCP_NEXT;
	return keep_back(pkt, option->address_id, param->echo);
}

static __always_inline void forget_subflow(const struct emptcp_handle *pkt)
{
	struct blocked_key key;
	__u32 end;

#pragma clang loop unroll(full)
	for (end = 0; end < 2; end++) {
		blocked_key_of(pkt, end, &key);
		bpf_map_delete_elem(&blocked_addresses, &key);
		bpf_map_delete_elem(&held_joins, &key);
	}
}

/* One to eight IDs stand behind the head. */
static __always_inline __u32 is_removed(const __u8 *option, __u32 len, __u8 id)
{
	__u32 removed = 0, i;

#pragma clang loop unroll(full)
	for (i = 3; i < REMOVE_ADDR_MAX; i++)
		removed |= is_zero(option[i] ^ id) & is_below(i, len);
	return removed;
}

static __always_inline void forget_removed(const struct emptcp_handle *pkt)
{
	const __u8 *option = emptcp_find(pkt, EMPTCP_REMOVE_ADDR, 4);
	struct blocked *blocked = blocked_of(pkt, false);
	__u32 len = emptcp_option_len(pkt, EMPTCP_REMOVE_ADDR), i;

	if (!option)
		return;
	/* Other subflows of the connection may keep it: programs don't know which those are. */
	emptcp_event(pkt, ADDRESS_REMOVED, option, REMOVE_ADDR_MAX);
	if (!blocked)
		return;
#pragma clang loop unroll(full)
	for (i = 0; i < BLOCKED_ADDRESSES; i++) {
		struct blocked_address *address = &blocked->address[i];

		address->len &= is_removed(option, len, address->option[3]) - 1;
	}
}

/* An ID that stands for another address now: also where no policy selects the packet. */
static __always_inline void forget_changed(const struct emptcp_handle *pkt, __u8 id)
{
	struct blocked *blocked = blocked_of(pkt, false);
	struct blocked_address *address = blocked ? stored(blocked, id) : NULL;

	if (address && !is_same(pkt, address))
		address->len = 0;
}

EMPTCP_COMPANION(blk_subflow_watch, pkt, void, none)
{
	const struct emptcp_add_addr4 *option = announced(pkt);
	__u32 flags = pkt->parsed->tcp_flags;

	if (flags & (EMPTCP_FIN | EMPTCP_RST) || (flags & EMPTCP_SYN && emptcp_has(pkt, EMPTCP_MP_CAPABLE)))
		forget_subflow(pkt);
	if (emptcp_has(pkt, EMPTCP_REMOVE_ADDR))
		forget_removed(pkt);
	if (option)
		forget_changed(pkt, option->address_id);
}
