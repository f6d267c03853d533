/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A first glance at a packet, before anything is looked up or written: can it matter to any policy at all?
 *
 * Most packets of most hosts can't, and they pay for every instruction of ours, so what answers no here is
 * only what a few loads can tell for sure. Whatever is not as usual goes to the parser, which also knows the
 * reason if it is broken. To the parser the glance says what is most likely usual, so that it need not look
 * at the same headers again.
 */
#ifndef EMPTCP_GLANCE_H
#define EMPTCP_GLANCE_H

#include <emptcp/option.h>
#include <emptcp/packet.h>
#include <emptcp/walk.h>

/* What stages want to know of a packet. */
enum emptcp_need {
	EMPTCP_NEED_OPTIONS = 1 << 0,
	EMPTCP_NEED_KEY = 1 << 1,
	EMPTCP_NEED_PLAIN = 1 << 2, /* also packets without an MPTCP option */
};

struct emptcp_parse_config {
	__u32 needs; /* enum emptcp_need */
	__u16 l2;    /* 14: Ethernet; 0: packets begin with IP */
	__u8 hook;   /* enum emptcp_hook */
	__u8 reserved;
	__u32 netns; /* low half of the namespace's cookie */
};

/* What a glance tells of a packet. */
enum emptcp_glanced {
	EMPTCP_GLANCED_NOTHING = 0, /* no policy can want it, and nothing about it is to be counted */
	EMPTCP_GLANCED_OTHER = 1,   /* it is for the parser to tell */
	EMPTCP_GLANCED_USUAL =
		2, /* TCP in IPv4 behind an untagged Ethernet header, in the middle of a connection */
};

#define EMPTCP_USUAL_IP4    0x45 /* version 4, no options */
#define EMPTCP_USUAL_HEADER 32	 /* TCP with NOP NOP TIMESTAMPS */

static __always_inline bool emptcp_is_vlan(__be16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

static __always_inline bool emptcp_is_extension(__u32 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_DSTOPTS || next == IPPROTO_ROUTING ||
	       next == IPPROTO_FRAGMENT;
}

/* A TCP packet of IPv4: one without options or with timestamps alone is for nobody but those who want plain
 * TCP, one in the middle of a connection is most likely what nearly all of a subflow are. */
static __always_inline enum emptcp_glanced
emptcp_glance_tcp(void *ctx, const struct iphdr *ip, const __u8 *end, __u32 room, __u32 needs, int backend)
{
	const __u8 *tcp = (const void *)(ip + 1);
	__u32 size, len = bpf_ntohs(ip->tot_len);

	if (*(const __u8 *)ip != EMPTCP_USUAL_IP4 || ip->frag_off & bpf_htons(0x3fff) ||
	    tcp + EMPTCP_USUAL_HEADER > end)
		return EMPTCP_GLANCED_OTHER;
	size = tcp[12] >> 4;
	if (len > room || len < sizeof(*ip) + size * 4)
		return EMPTCP_GLANCED_OTHER;
	if (size == EMPTCP_TCP_HEADER / 4 ||
	    (size == EMPTCP_USUAL_HEADER / 4 &&
	     *(const __be32 *)(tcp + EMPTCP_TCP_HEADER) == bpf_htonl(EMPTCP_USUAL_OPTIONS)))
		return needs & EMPTCP_NEED_PLAIN ? EMPTCP_GLANCED_OTHER : EMPTCP_GLANCED_NOTHING;
	if (size < EMPTCP_TCP_HEADER / 4 || !emptcp_is_bare_ack(tcp[EMPTCP_TCP_FLAGS]))
		return EMPTCP_GLANCED_OTHER;
	if (backend == EMPTCP_TC && ((struct __sk_buff *)ctx)->vlan_present)
		return EMPTCP_GLANCED_OTHER;
	return EMPTCP_GLANCED_USUAL;
}

static __always_inline enum emptcp_glanced emptcp_glance_ip4(void *ctx, const __u8 *data, const __u8 *end,
							     __u32 l2, __u32 needs, int backend)
{
	const struct iphdr *ip = (const void *)(data + l2);

	if ((const __u8 *)(ip + 1) > end)
		return EMPTCP_GLANCED_OTHER;
	if (ip->protocol != IPPROTO_TCP)
		return EMPTCP_GLANCED_NOTHING;
	return emptcp_glance_tcp(ctx, ip, end, emptcp_length(ctx, backend) - l2, needs, backend);
}

static __always_inline enum emptcp_glanced emptcp_glance_ip6(const __u8 *data, const __u8 *end, __u32 l2)
{
	const struct ipv6hdr *ip = (const void *)(data + l2);

	if ((const __u8 *)(ip + 1) > end || ip->nexthdr == IPPROTO_TCP || emptcp_is_extension(ip->nexthdr))
		return EMPTCP_GLANCED_OTHER;
	return EMPTCP_GLANCED_NOTHING;
}

/* What the packet is, as far as a few loads can tell. */
static __always_inline enum emptcp_glanced emptcp_glance(void *ctx, const struct emptcp_parse_config *config,
							 int backend)
{
	const __u8 *data = emptcp_data(ctx, backend), *end = emptcp_data_end(ctx, backend);
	const struct ethhdr *eth = (const void *)data;

	if (!config->l2 || data + sizeof(*eth) > end)
		return EMPTCP_GLANCED_OTHER;
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		return emptcp_glance_ip4(ctx, data, end, sizeof(*eth), config->needs, backend);
	if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		return emptcp_glance_ip6(data, end, sizeof(*eth));
	return emptcp_is_vlan(eth->h_proto) ? EMPTCP_GLANCED_OTHER : EMPTCP_GLANCED_NOTHING;
}

#endif
