/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Checksums, always by what changed (RFC 1624), never computed anew: a wrong one stays wrong by the same
 * amount.
 *
 * A sum here is the ones' complement sum of 16-bit words as they lie in memory, which is independent of byte
 * order. At TC the kernel's helpers do the update, because a locally sent packet is CHECKSUM_PARTIAL: its
 * field holds the pseudo-header's sum only, the device adds the rest, and only a change of the pseudo-header
 * (the length) may enter the field. The helpers know that; arithmetic on the packet's bytes does not.
 */
#ifndef EMPTCP_CHECKSUM_H
#define EMPTCP_CHECKSUM_H

#include <emptcp/abi.h>
#include <emptcp/bpf.h>
#include <emptcp/packet.h>

#define EMPTCP_TCP_LENGTH 12 /* offsets of fields in a TCP header */
#define EMPTCP_TCP_CHECK  16
#define EMPTCP_IP4_CHECK  10

/* A sum of up to 36 bits as one of 16. */
static __always_inline __u32 emptcp_fold(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* What a sum grows by when one of its words changes: 17 bits. */
static __always_inline __u32 emptcp_word_change(__u16 from, __u16 to)
{
	return to + (__u32)(__u16)~from;
}

/* The checksum field after its data's sum grew by `change`, which leaves room for 16 bits more. */
static __always_inline __sum16 emptcp_check_after(__sum16 check, __u32 change)
{
	__u32 sum = change + (__u16)~check;

	sum = (sum & 0xffff) + (sum >> 16);
	return ~(sum + (sum >> 16));
}

/*
 * Let the sum of TCP's checksum grow by `change`, which has 17 bits at most: there is room for as many
 * changes as a program can have stages. The field itself follows once for all of them, by emptcp_finish():
 * until then it is what came in.
 */
static __always_inline void emptcp_tcp_check_add(const struct emptcp_handle *pkt, __u32 change)
{
	pkt->parsed->sum += change;
}

/* The same for a change of the pseudo-header, which also the sums that a device is to complete hold. */
static __always_inline bool emptcp_pseudo_check_add(const struct emptcp_handle *pkt, __u32 change)
{
	__u32 offset = pkt->parsed->l4 + EMPTCP_TCP_CHECK;

	const __sum16 *check;

	if (pkt->backend == EMPTCP_XDP) {
		emptcp_tcp_check_add(pkt, change);
		return true;
	}
	if (bpf_l4_csum_replace(pkt->ctx, offset, 0, change, BPF_F_PSEUDO_HDR))
		return false;
	check = emptcp_parsed_bytes(pkt, offset, sizeof(*check));
	if (check)
		__builtin_memcpy((__u8 *)&pkt->parsed->tcp + EMPTCP_TCP_CHECK, check, sizeof(*check));
	return true;
}

/* Let the sum of the IPv4 header's checksum grow by `change`, and bring the field along. */
static __always_inline bool emptcp_ip4_check_add(const struct emptcp_handle *pkt, __u32 change)
{
	__u32 offset = pkt->parsed->l3 + EMPTCP_IP4_CHECK;
	__sum16 *check;

	if (pkt->backend == EMPTCP_TC)
		return !bpf_l3_csum_replace(pkt->ctx, offset, 0, change, 0);
	check = emptcp_bytes(pkt, offset, sizeof(*check));
	if (!check)
		return false;
	*check = emptcp_check_after(*check, change);
	return true;
}

#endif
