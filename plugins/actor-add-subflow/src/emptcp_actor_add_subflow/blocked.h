/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What blk_subflow and add_subflow agree on; each distribution has its own copy. */
#ifndef BLOCKED_H
#define BLOCKED_H

#include <emptcp/actor.h>
#include <emptcp/address.h>

/* Linux announces at most eight (MPTCP_PM_ADDR_MAX). */
#define BLOCKED_ADDRESSES 8

#define ADD_ADDR_MAX 30 /* bytes: IPv6, port and HMAC */

/* One end of one subflow. */
struct blocked_key {
	struct emptcp_key flow;
	__u32 netns;
	__u32 end; /* the one that announces, or that joins: an index into flow.addr */
};

/* blocked.py has the same layout. */
struct blocked_address {
	__u8 len;   /* bytes of the option; 0: nothing here */
	__u8 given; /* 1: given back, may pass */
	__u8 option[ADD_ADDR_MAX];
	__u64 since; /* when it was announced last: emptcp_now() */
};

struct blocked {
	struct blocked_address address[BLOCKED_ADDRESSES];
};

struct held_join {
	__u32 released; /* 1: its SYN may pass */
	__u32 syns;	/* how many were dropped */
};

static __always_inline void blocked_key_of(const struct emptcp_handle *pkt, __u32 end,
					   struct blocked_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->flow = pkt->parsed->key;
	key->netns = pkt->parsed->netns;
	key->end = end;
}

static __always_inline bool is_joining(const struct emptcp_handle *pkt)
{
	return emptcp_has(pkt, EMPTCP_MP_JOIN) &&
	       (pkt->parsed->tcp_flags & (EMPTCP_SYN | EMPTCP_ACK)) == EMPTCP_SYN &&
	       emptcp_option_len(pkt, EMPTCP_MP_JOIN) == sizeof(struct emptcp_mp_join_syn);
}

#endif
