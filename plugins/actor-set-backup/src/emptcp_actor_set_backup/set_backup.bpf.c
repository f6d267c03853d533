/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Says the backup bit in a passing packet, once per change: MP_PRIO steers what its receiver sends (RFC 8684
 * section 3.3.8), and in MP_JOIN's SYN the same bit does. Subflows of this host are told by the hooks, in an
 * ACK of their own; passing packets keep quiet meanwhile.
 */
#include <emptcp/actor.h>
#include <emptcp/address.h>

#define SECOND 1000000000ULL

/* Two policies that want different things would otherwise put an option into every packet. */
#define PACE (SECOND / 10)

enum steers {
	US = 1 << 0,
	PEER = 1 << 1,
};

struct set_backup {
	__u32 on;
	__u32 steers; /* 0: whoever this hook reaches */
};

/* A bit that is known: 1 for no, 2 for yes. */
enum bit {
	UNKNOWN = 0,
	NO = 1,
	YES = 2,
};

/* By the end that sends the packet. told.py has the same layout. */
struct set_backup_state {
	__u64 told_at;
	__u64 held_until[2]; /* the hooks tell, until then */
	__u32 next[2];	     /* the sequence number behind all that passed since a change; 0: unknown */
	__u8 told[2];	     /* what was said last in its name */
	__u8 own[2];	     /* what it asked for itself */
	__u8 reserved[4];
};

static __always_inline bool steers_here(const struct emptcp_handle *pkt, const struct set_backup *param)
{
	return !param->steers || param->steers & (pkt->parsed->hook == EMPTCP_INGRESS ? US : PEER);
}

/* The hooks' injected ACK: no DSS, no timestamps. The kernel's own MP_PRIO comes with a DSS. */
static __always_inline bool is_injected(const struct emptcp_pkt *parsed)
{
	return parsed->subtypes == 1 << EMPTCP_MP_PRIO && !parsed->timestamps &&
	       parsed->flags & EMPTCP_PKT_PURE_ACK;
}

/* The other end drops an ACK from before data that it has: where data overtook the hooks' ACK, move it on. */
static __always_inline void catch_up(const struct emptcp_handle *pkt, __u32 next)
{
	const struct tcphdr *tcp = emptcp_tcp(pkt);
	__be32 seq = bpf_htonl(next);

	if (next && (__s32)(bpf_ntohl(tcp->seq) - next) < 0)
		emptcp_rewrite(pkt, pkt->parsed->l4 + __builtin_offsetof(struct tcphdr, seq), &seq,
			       sizeof(seq));
}

static __always_inline void note_passing(const struct emptcp_handle *pkt, struct set_backup_state *state,
					 __u32 end)
{
	const struct tcphdr *tcp = emptcp_tcp(pkt);
	__u32 next = bpf_ntohl(tcp->seq) + pkt->parsed->payload_len;

	if (!state->next[end] || (__s32)(next - state->next[end]) > 0)
		state->next[end] = next;
}

/* The hooks' ACK goes out: false when a packet that passed in the meantime has said the same. A stage of
 * another policy may have let this very packet say it. */
static __always_inline bool is_news(const struct emptcp_handle *pkt, struct set_backup_state *state,
				    __u32 end, __u8 wanted)
{
	__u8 *judged = emptcp_scratch(pkt);

	if (state->told[end] == wanted && !*judged)
		return false;
	*judged = 1;
	catch_up(pkt, state->next[end]);
	return true;
}

/* Let an option that is there already say what is wanted, and note what it said. False: there is none. */
static __always_inline bool say_in(const struct emptcp_handle *pkt, enum emptcp_subtype subtype,
				   struct set_backup_state *state, __u32 end, __u8 wanted)
{
	const struct emptcp_option_head *head = EMPTCP_OPTION(pkt, subtype, struct emptcp_option_head);
	__u8 flags;

	if (!head)
		return false;
	flags = head->subtype_flags;
	if (!is_injected(pkt->parsed)) {
		state->own[end] = flags & EMPTCP_PRIO_BACKUP ? YES : NO;
	} else if (pkt->parsed->hook == EMPTCP_EGRESS && !is_news(pkt, state, end, wanted)) {
		emptcp_remove_option(pkt, subtype, EMPTCP_SAFE);
		return true;
	}
	if ((flags & EMPTCP_PRIO_BACKUP) != (wanted == YES)) {
		flags ^= EMPTCP_PRIO_BACKUP;
		if (!emptcp_rewrite_option(pkt, subtype, 2, &flags, sizeof(flags), EMPTCP_SAFE))
			return true;
	}
	state->told[end] = wanted;
	state->next[end] = 0;
	return true;
}

static __always_inline bool said_in_passing(const struct emptcp_handle *pkt, struct set_backup_state *state,
					    __u32 end, __u8 wanted)
{
	if (!(pkt->parsed->tcp_flags & EMPTCP_SYN))
		return say_in(pkt, EMPTCP_MP_PRIO, state, end, wanted);
	/* The first subflow can't be opened as backup; the long form, of the third ACK, has no such bit. */
	if (emptcp_has(pkt, EMPTCP_MP_CAPABLE))
		state->own[end] = NO;
	else if (emptcp_option_len(pkt, EMPTCP_MP_JOIN) <= sizeof(struct emptcp_mp_join_synack))
		say_in(pkt, EMPTCP_MP_JOIN, state, end, wanted);
	return true;
}

static __always_inline bool is_time(const struct emptcp_handle *pkt, const struct set_backup_state *state,
				    __u32 end, __u64 now)
{
	if (now < state->held_until[end] || (state->told[end] != UNKNOWN && now - state->told_at < PACE))
		return false;
	if (!(pkt->parsed->flags & EMPTCP_PKT_GSO))
		return true;
	/* It would be said once per segment. */
	emptcp_skip(pkt, EMPTCP_GSO);
	return false;
}

static __always_inline void say(const struct emptcp_handle *pkt, struct set_backup_state *state, __u32 end,
				__u8 wanted)
{
	const __u8 option[] = {EMPTCP_KIND_MPTCP, 3, EMPTCP_MP_PRIO << 4 | (wanted == YES)};
	__u64 now = emptcp_now();

	if (!is_time(pkt, state, end, now) || !emptcp_insert_option(pkt, option, sizeof(option)))
		return;
	state->told[end] = wanted;
	state->told_at = now;
	state->next[end] = 0;
}

EMPTCP_ACTOR_STATE(set_backup, pkt, struct set_backup, param, struct set_backup_state, state)
{
	__u32 end = emptcp_source(pkt);
	__u8 wanted = param->on ? YES : NO, said;

	if (!steers_here(pkt, param) || said_in_passing(pkt, state, end, wanted))
		return EMPTCP_NEXT;
	said = state->told[end] == UNKNOWN ? state->own[end] : state->told[end];
	/* A DSS shows that the connection still is MPTCP, and that its handshake is over. */
	if (said != wanted && emptcp_has(pkt, EMPTCP_DSS) && !emptcp_has(pkt, EMPTCP_MP_CAPABLE)) {
		note_passing(pkt, state, end);
		say(pkt, state, end, wanted);
	}
	return EMPTCP_NEXT;
}
