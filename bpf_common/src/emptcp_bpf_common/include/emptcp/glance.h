/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A first glance at a packet, before anything is looked up or written: can it matter to any policy at all?
 *
 * Most packets of most hosts can't, and they pay for every instruction of ours, so what answers no here is
 * only what a few loads can tell for sure. Whatever is not as usual goes to the parser, which also knows the
 * reason if it is broken.
 */
#ifndef EMPTCP_GLANCE_H
#define EMPTCP_GLANCE_H

#include <emptcp/parse.h>

/* Is this IPv4 packet a whole TCP segment that has no options, or timestamps alone? */
static __always_inline bool emptcp_glance_plain(const struct iphdr *ip, const __u8 *end, __u32 room)
{
	const __u8 *tcp = (const void *)(ip + 1);
	__u32 size, len = bpf_ntohs(ip->tot_len);

	if (*(const __u8 *)ip != EMPTCP_USUAL_IP4 || ip->frag_off & bpf_htons(0x3fff))
		return false;
	if (tcp + EMPTCP_USUAL_HEADER > end)
		return false;
	size = tcp[12] >> 4;
	if (len > room || len < sizeof(*ip) + size * 4)
		return false;
	if (size == EMPTCP_TCP_HEADER / 4)
		return true;
	return size == EMPTCP_USUAL_HEADER / 4 &&
	       *(const __be32 *)(tcp + EMPTCP_TCP_HEADER) == bpf_htonl(EMPTCP_USUAL_OPTIONS);
}

static __always_inline bool emptcp_glance_ip4(void *ctx, const __u8 *data, const __u8 *end, __u32 l2,
					      const struct emptcp_parse_config *config, int backend)
{
	const struct iphdr *ip = (const void *)(data + l2);

	if ((const __u8 *)(ip + 1) > end)
		return true;
	if (ip->protocol != IPPROTO_TCP)
		return false;
	if (config->needs & EMPTCP_NEED_PLAIN)
		return true;
	return !emptcp_glance_plain(ip, end, emptcp_length(ctx, backend) - l2);
}

static __always_inline bool emptcp_glance_ip6(const __u8 *data, const __u8 *end, __u32 l2)
{
	const struct ipv6hdr *ip = (const void *)(data + l2);

	if ((const __u8 *)(ip + 1) > end)
		return true;
	return ip->nexthdr == IPPROTO_TCP || emptcp_is_extension(ip->nexthdr);
}

/* False: no policy can want the packet, and nothing about it is to be counted. */
static __always_inline bool emptcp_glance(void *ctx, const struct emptcp_parse_config *config, int backend)
{
	const __u8 *data = emptcp_data(ctx, backend), *end = emptcp_data_end(ctx, backend);
	const struct ethhdr *eth = (const void *)data;

	if (!config->l2 || data + sizeof(*eth) > end)
		return true;
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		return emptcp_glance_ip4(ctx, data, end, sizeof(*eth), config, backend);
	if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		return emptcp_glance_ip6(data, end, sizeof(*eth));
	return emptcp_is_vlan(eth->h_proto);
}

#endif
