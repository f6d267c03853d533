/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include <emptcp/address.h>
#include <emptcp/selector.h>

enum space {
	DSN = 0,
	SSN = 1,
};

struct sequence {
	__u64 first;
	__u64 last;
	__u8 space;
	__u8 relative;
	__u8 reserved[6];
};

/* What is known of the data sequence numbers of one direction. */
enum known {
	FOLLOWED = 1 << 0, /* `last` is there */
	WIDE = 1 << 1,	   /* and so is its upper half: one was seen with 8 bytes */
	STARTED = 1 << 2,
};

/* Pairs are by the end that sends. */
struct sequence_state {
	__u64 start[2]; /* the number before that of the first byte: IDSN */
	__u64 last[2];	/* of the last mapping seen */
	__u32 lead[2];	/* SSN behind the data that came with an MP_CAPABLE, 0: none */
	__u8 known[2];
	__u8 reserved[6];
};

static __always_inline bool is_within(const struct sequence *param, __u64 number)
{
	return number - param->first <= param->last - param->first;
}

/* The same for a number of which only the lower half is known: is one of those that end so in the range? */
static __always_inline bool is_half_within(const struct sequence *param, __u32 number)
{
	return number - (__u32)param->first <= param->last - param->first;
}

/* Numbers of 32 bits. */
static __always_inline bool is_ssn_within(const struct sequence *param, __u32 number)
{
	return number - (__u32)param->first <= (__u32)param->last - (__u32)param->first;
}

static __always_inline bool is_unknown(const struct emptcp_handle *pkt)
{
	pkt->parsed->reason = EMPTCP_UNKNOWN_STATE;
	return false;
}

/*
 * MP_CAPABLE with the connection's first data, whose mapping begins at 1 in both spaces, and says no more
 * than how long it is (RFC 8684, section 3.1).
 */
static __always_inline const struct emptcp_mp_capable *first_data(const struct emptcp_handle *pkt)
{
	return emptcp_find(pkt, EMPTCP_MP_CAPABLE, 22);
}

/* The mapping's number with all its 64 bits; those of 4 bytes are next to the last one seen. */
static __always_inline __u64 follow(const struct emptcp_dss *dss, struct sequence_state *state, __u32 end)
{
	__u64 last = state->last[end], near = last + (__s32)((__u32)dss->seq - (__u32)last), dsn = dss->seq;
	__u32 known = state->known[end];

	if (!(dss->flags & EMPTCP_DSS_SEQ8)) {
		dsn = known & FOLLOWED ? near : dsn;
	} else {
		if ((known & (FOLLOWED | WIDE)) == FOLLOWED)
			state->start[end] += dsn - near;
		known |= WIDE;
	}
	state->last[end] = dsn;
	state->known[end] = known | FOLLOWED;
	return dsn;
}

/*
 * The connection's start is known by the mapping that begins it, or follows what came with the MP_CAPABLE: on
 * the subflow that made the connection both spaces begin together.
 */
static __always_inline void find_start(const struct emptcp_handle *pkt, const struct emptcp_dss *dss,
				       __u64 dsn, struct sequence_state *state, __u32 end)
{
	__u32 ssn = dss->subflow_seq;

	if (state->known[end] & STARTED || !ssn || (ssn != 1 && ssn != state->lead[end]))
		return;
	if (!pkt->flow || !(pkt->flow->key[0] | pkt->flow->key[1]))
		return;
	state->start[end] = dsn - ssn;
	state->known[end] |= STARTED;
}

static __always_inline bool is_dsn(const struct emptcp_handle *pkt, const struct sequence *param,
				   struct sequence_state *state)
{
	const struct emptcp_mp_capable *capable = first_data(pkt);
	__u32 end = emptcp_source(pkt);
	struct emptcp_dss dss;
	__u64 dsn;

	if (capable) {
		state->lead[end] = 1 + bpf_ntohs(capable->data_len);
		return param->relative ? is_within(param, 1) : is_unknown(pkt);
	}
	if (!emptcp_read_dss(pkt, &dss) || !(dss.flags & EMPTCP_DSS_MAP))
		return false;
	dsn = follow(&dss, state, end);
	find_start(pkt, &dss, dsn, state, end);
	if (!param->relative)
		return state->known[end] & WIDE ? is_within(param, dsn) : is_half_within(param, dsn);
	if (!(state->known[end] & STARTED))
		return is_unknown(pkt);
	return is_within(param, dsn - state->start[end]);
}

static __always_inline bool is_ssn(const struct emptcp_handle *pkt, const struct sequence *param)
{
	struct emptcp_dss dss;

	if (!param->relative)
		return is_ssn_within(param, bpf_ntohl(emptcp_tcp(pkt)->seq));
	if (first_data(pkt))
		return is_ssn_within(param, 1);
	if (!emptcp_read_dss(pkt, &dss) || !(dss.flags & EMPTCP_DSS_MAP))
		return false;
	/* A DATA_FIN without data has no place in the subflow, and says 0 (RFC 8684, section 3.3.3). */
	if (dss.flags & EMPTCP_DSS_FIN && !pkt->parsed->payload_len)
		return false;
	return is_ssn_within(param, dss.subflow_seq);
}

EMPTCP_SELECTOR_STATE(sequence, pkt, struct sequence, param, struct sequence_state, state)
{
	return param->space == SSN ? is_ssn(pkt, param) : is_dsn(pkt, param, state);
}
