/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A first glance at a packet, before anything is looked up or written: can it matter to any policy at all?
 *
 * Most packets of most hosts can't, and they pay for every instruction of ours, so what answers no here is
 * only what a few loads can tell for sure. What nearly all packets of a subflow are it knows whole: of these
 * the parser has but to write down what was seen. Whatever else there is goes to the parser, which also knows
 * the reason if it is broken.
 */
#ifndef EMPTCP_GLANCE_H
#define EMPTCP_GLANCE_H

#include <emptcp/option.h>
#include <emptcp/packet.h>
#include <emptcp/walk.h>

/* What stages want to know of a packet. */
enum emptcp_need {
	EMPTCP_NEED_OPTIONS = 1 << 0, /* where the options are, and their copy */
	EMPTCP_NEED_KEY = 1 << 1,
	EMPTCP_NEED_PLAIN = 1 << 2, /* also packets without an MPTCP option */
	EMPTCP_NEED_TCP = 1 << 3,   /* the TCP header without its options */
	EMPTCP_NEED_REST = 1 << 4,  /* hook, lengths, flags, namespace, and the stages' scratch */
};

struct emptcp_parse_config {
	__u32 needs; /* enum emptcp_need */
	__u16 l2;    /* 14: Ethernet; 0: packets begin with IP */
	__u8 hook;   /* enum emptcp_hook */
	__u8 reserved;
	__u32 netns; /* low half of the namespace's cookie */
};

/* The same in one number, but for the namespace: what a program's own code says, the verifier folds. */
static __always_inline struct emptcp_parse_config emptcp_parse_how(__u32 how, __u32 netns)
{
	return (struct emptcp_parse_config){
		.needs = how & 0xff,
		.hook = how >> 8 & 0xff,
		.l2 = how >> 16,
		.netns = netns,
	};
}

/* And back. */
static __always_inline __u32 emptcp_parse_how_of(const struct emptcp_parse_config *config)
{
	return (config->needs & 0xff) | config->hook << 8 | (__u32)config->l2 << 16;
}

/* What a glance tells of a packet. */
enum emptcp_glanced {
	EMPTCP_GLANCED_NOTHING = 0, /* no policy can want it, and nothing about it is to be counted */
	EMPTCP_GLANCED_OTHER = 1,   /* it is for the parser to tell */
	EMPTCP_GLANCED_USUAL = 2,   /* what nearly all packets of a subflow are: emptcp_usual has all of it */
};

/* TCP in IPv4 behind an untagged Ethernet header, in the middle of a connection, with timestamps and a DSS.
 */
struct emptcp_usual {
	const __u8 *tcp;
	__u32 size;    /* of the TCP header */
	__u32 ip_len;  /* of the IP packet */
	__u32 dss_len; /* of the DSS */
};

#define EMPTCP_USUAL_IP4     0x45 /* version 4, no options */
#define EMPTCP_USUAL_HEADER  32	  /* TCP with NOP NOP TIMESTAMPS */
#define EMPTCP_USUAL_DSS     0x1e002000
#define EMPTCP_USUAL_DSS_IS  0xff00f000 /* kind and subtype */
#define EMPTCP_USUAL_DSS_END 0x0101	/* two NOPs */
/* Up to where what is usual is looked at before its length is: the first four bytes of the DSS. */
#define EMPTCP_USUAL_LEAST (sizeof(struct ethhdr) + sizeof(struct iphdr) + EMPTCP_USUAL_HEADER + 4)
/* Two words of the headers, and what of them is looked at: EtherType, version and length of the IP header;
 * fragment and protocol. */
#define EMPTCP_USUAL_TYPE	 (ETH_P_IP << 16 | EMPTCP_USUAL_IP4 << 8)
#define EMPTCP_USUAL_TYPE_IS	 0xffffff00
#define EMPTCP_USUAL_PROTOCOL	 IPPROTO_TCP
#define EMPTCP_USUAL_PROTOCOL_IS 0x3fff00ff

static __always_inline bool emptcp_is_vlan(__be16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

static __always_inline bool emptcp_is_extension(__u32 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_DSTOPTS || next == IPPROTO_ROUTING ||
	       next == IPPROTO_FRAGMENT;
}

/* Whether four bytes at an offset are, of the bits of a mask, those of a number. Two bytes of alignment are
 * enough. */
static __always_inline bool emptcp_has_word(const __u8 *data, __u32 offset, __u32 mask, __u32 number)
{
	return (*(const __be32 *)(data + offset) & bpf_htonl(mask)) == bpf_htonl(number);
}

/* Whether timestamps are followed by a DSS, two NOPs behind it or none, and nothing else. */
static __always_inline bool emptcp_has_usual_options(const __u8 *end, struct emptcp_usual *usual)
{
	const __u8 *dss = usual->tcp + EMPTCP_USUAL_HEADER, *last = usual->tcp + usual->size - 2;
	__u32 others;

	if (emptcp_unlikely(last + 2 > end) ||
	    emptcp_unlikely(!emptcp_has_word(usual->tcp, EMPTCP_TCP_HEADER, ~0U, EMPTCP_USUAL_OPTIONS)) ||
	    emptcp_unlikely(!emptcp_has_word(dss, 0, EMPTCP_USUAL_DSS_IS, EMPTCP_USUAL_DSS)))
		return false;
	/* Once more from the packet: cheaper than to keep the word and take it apart. */
	usual->dss_len = READ_ONCE(dss[1]);
	if (emptcp_unlikely(!emptcp_legal_dss(READ_ONCE(dss[3]), usual->dss_len)))
		return false;
	others = usual->size - usual->dss_len;
	return emptcp_likely(others == EMPTCP_USUAL_HEADER) ||
	       emptcp_likely(others == EMPTCP_USUAL_HEADER + 2 &&
			     *(const __u16 *)last == EMPTCP_USUAL_DSS_END);
}

/* TCP without options or with timestamps alone, which stand in the packet: only for those who want plain TCP.
 */
static __always_inline enum emptcp_glanced emptcp_glance_plain(const __u8 *tcp, __u32 size,
							       const struct emptcp_parse_config *config)
{
	if (config->needs & EMPTCP_NEED_PLAIN)
		return EMPTCP_GLANCED_OTHER;
	if (size == EMPTCP_TCP_HEADER || (size == EMPTCP_USUAL_HEADER &&
					  emptcp_has_word(tcp, EMPTCP_TCP_HEADER, ~0U, EMPTCP_USUAL_OPTIONS)))
		return EMPTCP_GLANCED_NOTHING;
	return EMPTCP_GLANCED_OTHER;
}

static __always_inline bool emptcp_has_length(const struct iphdr *ip, __u32 size, __u32 room)
{
	__u32 len = bpf_ntohs(ip->tot_len);

	return len <= room && len >= sizeof(*ip) + size;
}

/* TCP in IPv4 without options of IP, not a fragment: EMPTCP_USUAL_LEAST bytes are there. One in the middle of
 * a connection that has more than timestamps is most likely what nearly all packets of a subflow are. */
static __always_inline enum emptcp_glanced emptcp_glance_tcp(void *ctx, const struct iphdr *ip,
							     const __u8 *end, __u32 room,
							     const struct emptcp_parse_config *config,
							     struct emptcp_usual *usual, int backend)
{
	const __u8 *tcp = (const void *)(ip + 1);
	__u32 size = tcp[12] >> 4 << 2, len = bpf_ntohs(ip->tot_len);

	if (emptcp_unlikely(!emptcp_has_length(ip, size, room)))
		return EMPTCP_GLANCED_OTHER;
	if (emptcp_unlikely(size <= EMPTCP_USUAL_HEADER))
		return emptcp_glance_plain(tcp, size, config);
	if (config->needs & EMPTCP_NEED_REST && emptcp_unlikely(len > 0xffff - sizeof(struct ethhdr)))
		return EMPTCP_GLANCED_OTHER; /* no number for ip_end */
	if (emptcp_unlikely(!emptcp_is_bare_ack(tcp[EMPTCP_TCP_FLAGS])))
		return EMPTCP_GLANCED_OTHER;
	if (backend == EMPTCP_TC && emptcp_unlikely(((struct __sk_buff *)ctx)->vlan_present))
		return EMPTCP_GLANCED_OTHER;
	*usual = (struct emptcp_usual){.tcp = tcp, .size = size, .ip_len = len};
	return emptcp_has_usual_options(end, usual) ? EMPTCP_GLANCED_USUAL : EMPTCP_GLANCED_OTHER;
}

/* IPv4 that is too short for what is usual, or has options. */
static __always_inline enum emptcp_glanced emptcp_glance_ip4(const __u8 *data, const __u8 *end, __u32 room,
							     const struct emptcp_parse_config *config)
{
	const struct iphdr *ip = (const void *)(data + sizeof(struct ethhdr));
	const __u8 *tcp = (const void *)(ip + 1);
	__u32 size;

	if (tcp > end)
		return EMPTCP_GLANCED_OTHER;
	if (ip->protocol != IPPROTO_TCP)
		return EMPTCP_GLANCED_NOTHING;
	if (*(const __u8 *)ip != EMPTCP_USUAL_IP4 || ip->frag_off & bpf_htons(0x3fff) ||
	    tcp + EMPTCP_USUAL_HEADER > end)
		return EMPTCP_GLANCED_OTHER;
	size = tcp[12] >> 4 << 2;
	return emptcp_has_length(ip, size, room) ? emptcp_glance_plain(tcp, size, config)
						 : EMPTCP_GLANCED_OTHER;
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
							 struct emptcp_usual *usual, int backend)
{
	const __u8 *data = emptcp_data(ctx, backend), *end = emptcp_data_end(ctx, backend);
	const struct iphdr *ip = (const void *)(data + sizeof(struct ethhdr));
	__u32 room = emptcp_length(ctx, backend) - sizeof(struct ethhdr);
	__be16 type;

	if (!config->l2)
		return EMPTCP_GLANCED_OTHER;
	if (emptcp_likely(data + EMPTCP_USUAL_LEAST <= end) &&
	    emptcp_likely(emptcp_has_word(data, __builtin_offsetof(struct ethhdr, h_proto),
					  EMPTCP_USUAL_TYPE_IS, EMPTCP_USUAL_TYPE))) {
		if (emptcp_likely(emptcp_has_word((const void *)ip,
						  __builtin_offsetof(struct iphdr, frag_off),
						  EMPTCP_USUAL_PROTOCOL_IS, EMPTCP_USUAL_PROTOCOL)))
			return emptcp_glance_tcp(ctx, ip, end, room, config, usual, backend);
		return READ_ONCE(ip->protocol) == IPPROTO_TCP ? EMPTCP_GLANCED_OTHER : EMPTCP_GLANCED_NOTHING;
	}
	if (data + sizeof(struct ethhdr) > end)
		return EMPTCP_GLANCED_OTHER;
	/* Not as a member of the packed struct, which would be read byte by byte. */
	type = *(const __be16 *)(data + __builtin_offsetof(struct ethhdr, h_proto));
	if (type == bpf_htons(ETH_P_IP))
		return emptcp_glance_ip4(data, end, room, config);
	if (type == bpf_htons(ETH_P_IPV6))
		return emptcp_glance_ip6(data, end, sizeof(struct ethhdr));
	return emptcp_is_vlan(type) ? EMPTCP_GLANCED_OTHER : EMPTCP_GLANCED_NOTHING;
}

#endif
