/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Goodput by data sequence numbers: bytes of the connection's data that mappings brought on this subflow and
 * that it had not brought before. Mappings stand for what they promise: all segments of a merged packet have
 * the whole one's, so the count may be ahead of the packets by 64 KiB.
 */
#ifndef RECORD_GOODPUT_H
#define RECORD_GOODPUT_H

#include "flow.h"

#include <emptcp/option.h>

static __always_inline void bring(struct record_way *way, __u64 bytes)
{
	way->last_at = emptcp_now();
	if (!way->first_at)
		way->first_at = way->last_at;
	way->goodput += bytes;
}

/*
 * The connection's first data may come with an MP_CAPABLE, which tells how much it is and not where: at the
 * first number, in both spaces (RFC 8684, section 3.1). The mapping behind it tells where.
 */
static __always_inline void follow_first_data(struct record_way *way, const struct emptcp_mp_capable *capable)
{
	if (way->lead || way->known & MAPPED)
		return;
	way->lead = bpf_ntohs(capable->data_len);
	if (way->lead)
		bring(way, way->lead);
}

/* The mapping's number with all its 64 bits; those of 4 bytes are next to the last one seen. */
static __always_inline __u64 widened(struct record_way *way, const struct emptcp_dss *dss)
{
	__u64 near = way->dsn_next + (__s32)((__u32)dss->seq - (__u32)way->dsn_next);

	if (!(way->known & MAPPED))
		return dss->seq;
	if (!(dss->flags & EMPTCP_DSS_SEQ8))
		return near;
	if (!(way->known & WIDE)) {
		way->dsn_first += dss->seq - near;
		way->dsn_next += dss->seq - near;
	}
	return dss->seq;
}

static __always_inline void follow_mapping(struct record_way *way, const struct emptcp_dss *dss)
{
	/* The end of the data takes a number, and is no data. A mapping without length is for all that
	 * follows (RFC 8684, section 3.7): then there are no numbers any more. */
	__u32 bytes = dss->data_len - (dss->flags & EMPTCP_DSS_FIN && dss->data_len);
	__u64 dsn = widened(way, dss);
	__s64 ahead;

	if (!bytes)
		return;
	if (!(way->known & MAPPED)) {
		way->dsn_first = way->dsn_next = dsn;
		if (way->lead && dss->subflow_seq == 1U + way->lead)
			way->dsn_first -= way->lead;
	}
	way->known |= MAPPED | (dss->flags & EMPTCP_DSS_SEQ8 ? WIDE : 0);
	ahead = dsn + bytes - way->dsn_next;
	if (ahead <= 0)
		return;
	way->dsn_next += ahead;
	bring(way, ahead < bytes ? ahead : bytes);
}

static __always_inline void follow_goodput(const struct emptcp_handle *pkt, struct record_way *way)
{
	const struct emptcp_mp_capable *capable = emptcp_find(pkt, EMPTCP_MP_CAPABLE, 22);
	struct emptcp_dss dss;

	if (capable)
		follow_first_data(way, capable);
	else if (emptcp_read_dss(pkt, &dss) && dss.flags & EMPTCP_DSS_MAP)
		follow_mapping(way, &dss);
}

#endif
