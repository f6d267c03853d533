/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The parser: one pass from the link layer to the last TCP option, once per packet, for all stages.
 *
 * What is not TCP leaves after a few loads and before anything is written but two bytes. When in doubt a
 * packet is left alone, or parsed and marked `no_modify`, with the reason.
 */
#ifndef EMPTCP_PARSE_H
#define EMPTCP_PARSE_H

#include <emptcp/abi.h>
#include <emptcp/bpf.h>
#include <emptcp/glance.h>
#include <emptcp/option.h>
#include <emptcp/packet.h>
#include <emptcp/walk.h>

enum emptcp_parse_result {
	EMPTCP_PARSE_NONLINEAR = -1, /* goes on behind what pointers reach */
	EMPTCP_PARSE_LEAVE = 0,	     /* not ours; or broken, then parsed->reason says why */
	EMPTCP_PARSE_TCP = 1,
};

#define EMPTCP_EXTENSION_HEADERS 8
/* Brought into the linear part of an skb when headers are not: any usual chain of headers. */
#define EMPTCP_PULL 512

static __always_inline int emptcp_leave(struct emptcp_pkt *parsed, enum emptcp_reason reason)
{
	parsed->no_modify = reason;
	parsed->reason = reason;
	return EMPTCP_PARSE_LEAVE;
}

/* A tag that the device or the stack took out of the frame: it stands in the skb. */
static __always_inline __u32 emptcp_parse_skb_tag(void *ctx, struct emptcp_pkt *parsed, int backend)
{
	struct __sk_buff *skb = ctx;

	if (backend != EMPTCP_TC || !skb->vlan_present)
		return 0;
	if (skb->vlan_tci & 0xfff)
		parsed->flags = EMPTCP_PKT_VLAN;
	return 1;
}

/*
 * Step over at most two tags, the one in the skb counted. VLAN ID 0 is a priority tag: the packet is in no
 * VLAN. Answers the EtherType behind them, or EMPTCP_PARSE_NONLINEAR, and leaves the offset in parsed->l3.
 */
static __always_inline int emptcp_parse_tags(const __u8 *data, const __u8 *end, struct emptcp_pkt *parsed,
					     __be16 type, __u32 tags)
{
	__u32 offset = sizeof(struct ethhdr), i;

#pragma clang loop unroll(full)
	for (i = 0; i < 2; i++) {
		const struct vlan_hdr *tag = (const void *)(data + offset);

		if (!emptcp_is_vlan(type) || i + tags >= 2)
			break;
		if ((const __u8 *)(tag + 1) > end)
			return EMPTCP_PARSE_NONLINEAR;
		if (tag->h_vlan_TCI & bpf_htons(0xfff))
			parsed->flags = EMPTCP_PKT_VLAN;
		type = tag->h_vlan_encapsulated_proto;
		offset += sizeof(*tag);
	}
	WRITE_ONCE(parsed->l3, offset);
	return type;
}

/* The IP version behind an Ethernet header, 0 if it is something else, or EMPTCP_PARSE_NONLINEAR; parsed->l3.
 */
static __always_inline int emptcp_parse_ethernet(const __u8 *data, const __u8 *end, struct emptcp_pkt *parsed,
						 __u32 tags)
{
	const struct ethhdr *eth = (const void *)data;
	int type;

	if (data + sizeof(*eth) > end)
		return EMPTCP_PARSE_NONLINEAR;
	type = eth->h_proto;
	WRITE_ONCE(parsed->l3, sizeof(*eth));
	if (emptcp_is_vlan(type))
		type = emptcp_parse_tags(data, end, parsed, type, tags);
	if (type == bpf_htons(ETH_P_IP))
		return 4;
	if (type == bpf_htons(ETH_P_IPV6))
		return 6;
	if (type < 0)
		return type;
	return emptcp_is_vlan(type) ? emptcp_leave(parsed, EMPTCP_TOO_MANY_HEADERS) : 0;
}

/* Without a link layer the first four bits tell; by the device's type, never by guessing from a frame. */
static __always_inline int emptcp_parse_raw(const __u8 *data, const __u8 *end, struct emptcp_pkt *parsed)
{
	WRITE_ONCE(parsed->l3, 0);
	if (data + 1 > end)
		return EMPTCP_PARSE_NONLINEAR;
	return data[0] >> 4;
}

/* The bytes of the IP packet as it tells them itself; 0: it does not. Leaves parsed->l4. */
static __always_inline int emptcp_parse_ip4(const __u8 *ip, const __u8 *end, struct emptcp_pkt *parsed,
					    __u32 *len)
{
	const struct iphdr *header = (const void *)ip;
	__u32 size, fragment;

	if ((const __u8 *)(header + 1) > end)
		return EMPTCP_PARSE_NONLINEAR;
	if (header->protocol != IPPROTO_TCP)
		return EMPTCP_PARSE_LEAVE;
	size = header->ihl * 4;
	if (header->version != 4 || size < sizeof(*header))
		return emptcp_leave(parsed, EMPTCP_BAD_HEADER);
	/* 0x2000: more fragments, the rest: offset. */
	fragment = header->frag_off & bpf_htons(0x3fff);
	if (fragment & bpf_htons(0x1fff))
		return emptcp_leave(parsed, EMPTCP_FRAGMENT);
	if (fragment)
		parsed->no_modify = EMPTCP_FRAGMENT;
	*len = bpf_ntohs(header->tot_len);
	WRITE_ONCE(parsed->l4, parsed->l3 + size);
	return EMPTCP_PARSE_TCP;
}

/* One extension header at `at`, of the kind `next`: how long it is, 0: stop with *result. */
static __always_inline __u32 emptcp_parse_extension(const __u8 *at, __u32 next, struct emptcp_pkt *parsed,
						    int *result)
{
	switch (next) {
	case IPPROTO_ROUTING:
		/* TCP's checksum was made with the last address of the route (RFC 8200, section 8.1). */
		if (at[3])
			parsed->no_modify = EMPTCP_ROUTING_HEADER;
		break;
	case IPPROTO_FRAGMENT:
		if (*(const __be16 *)(at + 2) & bpf_htons(0xfff8)) {
			*result = emptcp_leave(parsed, EMPTCP_FRAGMENT);
			return 0;
		}
		parsed->no_modify = EMPTCP_FRAGMENT;
		return 8;
	}
	return 8 + at[1] * 8;
}

/* From parsed->cursor on, where a header of the kind parsed->argument stands, to TCP; leaves parsed->l4. */
static __always_inline int emptcp_parse_extensions(void *ctx, int backend)
{
	const __u8 *data = emptcp_data(ctx, backend), *end = emptcp_data_end(ctx, backend);
	struct emptcp_pkt *parsed = emptcp_parsed();
	__u32 i;

	if (!parsed)
		return EMPTCP_PARSE_LEAVE;
#pragma clang loop unroll(disable)
	for (i = 0; i < EMPTCP_EXTENSION_HEADERS; i++) {
		__u32 offset = READ_ONCE(parsed->cursor) & EMPTCP_OFFSET_MASK, size;
		const __u8 *at = data + offset;
		int result;

		if (at + 8 > end)
			return EMPTCP_PARSE_NONLINEAR;
		size = emptcp_parse_extension(at, READ_ONCE(parsed->argument), parsed, &result);
		if (!size)
			return result;
		WRITE_ONCE(parsed->cursor, offset + size);
		WRITE_ONCE(parsed->argument, at[0]);
		if (at[0] == IPPROTO_TCP) {
			parsed->l4 = offset + size;
			return EMPTCP_PARSE_TCP;
		}
		/* Before its bytes are asked for: of "no next header" there are none. */
		if (!emptcp_is_extension(at[0]))
			return EMPTCP_PARSE_LEAVE;
	}
	return emptcp_leave(parsed, EMPTCP_TOO_MANY_HEADERS);
}

__weak __noinline int emptcp_parse_extensions_xdp(struct xdp_md *ctx)
{
	return emptcp_parse_extensions(ctx, EMPTCP_XDP);
}

__weak __noinline int emptcp_parse_extensions_tc(struct __sk_buff *ctx)
{
	return emptcp_parse_extensions(ctx, EMPTCP_TC);
}

static __always_inline int emptcp_parse_ip6(void *ctx, const __u8 *ip, const __u8 *end,
					    struct emptcp_pkt *parsed, int backend, __u32 *len)
{
	const struct ipv6hdr *header = (const void *)ip;
	__u32 offset, payload;

	if ((const __u8 *)(header + 1) > end)
		return EMPTCP_PARSE_NONLINEAR;
	if (header->nexthdr != IPPROTO_TCP && !emptcp_is_extension(header->nexthdr))
		return EMPTCP_PARSE_LEAVE;
	if (header->version != 6)
		return emptcp_leave(parsed, EMPTCP_BAD_HEADER);
	offset = parsed->l3 + sizeof(*header);
	payload = bpf_ntohs(header->payload_len);
	*len = payload ? payload + sizeof(*header) : 0;
	if (header->nexthdr == IPPROTO_TCP) {
		WRITE_ONCE(parsed->l4, offset);
		return EMPTCP_PARSE_TCP;
	}
	parsed->cursor = offset;
	parsed->argument = header->nexthdr;
	return backend == EMPTCP_XDP ? emptcp_parse_extensions_xdp(ctx) : emptcp_parse_extensions_tc(ctx);
}

/* Copy the options. Words are read one by one only where the packet ends within 40 bytes. */
static __always_inline void emptcp_copy_options(const __u8 *from, const __u8 *end, struct emptcp_pkt *parsed,
						__u32 len)
{
	__u32 i;

	if (from + EMPTCP_TCP_OPTIONS_MAX <= end) {
		for (i = 0; i < EMPTCP_TCP_OPTIONS_MAX / 8; i++)
			((__u64 *)parsed->block)[i] = ((const __u64 *)from)[i];
		return;
	}
#pragma clang loop unroll(full)
	for (i = 0; i < EMPTCP_TCP_OPTIONS_MAX / 4; i++) {
		if (i * 4 >= len || from + i * 4 + 4 > end)
			return;
		((__u32 *)parsed->block)[i] = ((const __u32 *)from)[i];
	}
}

static __always_inline void emptcp_parse_key4(const __u8 *ip, const __be16 *ports, struct emptcp_pkt *parsed)
{
	const struct iphdr *header = (const void *)ip;
	__u32 source = bpf_ntohl(header->saddr), target = bpf_ntohl(header->daddr);
	__u32 from = bpf_ntohs(ports[0]), to = bpf_ntohs(ports[1]);
	bool turned = source > target || (source == target && from > to);
	struct emptcp_key *key = &parsed->key;

	parsed->direction = turned;
	key->addr[0][0] = key->addr[0][1] = key->addr[1][0] = key->addr[1][1] = 0;
	key->addr[0][2] = key->addr[1][2] = bpf_htonl(0xffff);
	key->addr[0][3] = turned ? header->daddr : header->saddr;
	key->addr[1][3] = turned ? header->saddr : header->daddr;
	key->port[0] = turned ? ports[1] : ports[0];
	key->port[1] = turned ? ports[0] : ports[1];
}

static __always_inline void emptcp_parse_key6(const __u8 *ip, const __be16 *ports, struct emptcp_pkt *parsed)
{
	const struct ipv6hdr *header = (const void *)ip;
	const __be64 *source = (const void *)header->saddr, *target = (const void *)header->daddr;
	__u64 source_high = bpf_be64(source[0]), target_high = bpf_be64(target[0]);
	__u64 source_low = bpf_be64(source[1]), target_low = bpf_be64(target[1]);
	bool turned = bpf_ntohs(ports[0]) > bpf_ntohs(ports[1]);
	struct emptcp_key *key = &parsed->key;
	const __be32 *first, *second;

	if (source_high != target_high)
		turned = source_high > target_high;
	else if (source_low != target_low)
		turned = source_low > target_low;
	parsed->direction = turned;
	first = turned ? header->daddr : header->saddr;
	second = turned ? header->saddr : header->daddr;
	__builtin_memcpy(key->addr[0], first, 16);
	__builtin_memcpy(key->addr[1], second, 16);
	key->port[0] = turned ? ports[1] : ports[0];
	key->port[1] = turned ? ports[0] : ports[1];
}

/* Where the IP packet ends, and with it the payload. False: the packet is to be left alone. */
static __always_inline bool emptcp_parse_lengths(struct emptcp_pkt *parsed, __u32 payload, __u32 len,
						 __u32 frame)
{
	__u32 ip_end = len ? parsed->l3 + len : frame;

	parsed->payload = payload;
	if (ip_end > frame)
		return emptcp_leave(parsed, EMPTCP_TRUNCATED);
	if (ip_end < payload)
		return emptcp_leave(parsed, EMPTCP_BAD_HEADER);
	parsed->length = ip_end - parsed->l3;
	parsed->payload_len = ip_end - payload;
	parsed->ip_end = len && ip_end <= 0xffff ? ip_end : 0;
	if (!len)
		emptcp_forbid(parsed, EMPTCP_LENGTH_UNKNOWN);
	return true;
}

static __always_inline void emptcp_parse_flags(void *ctx, struct emptcp_pkt *parsed, __u32 flags, bool whole,
					       int backend)
{
	__u8 found = parsed->flags;

	parsed->tcp_flags = flags;
	if (whole && !parsed->payload_len && emptcp_is_bare_ack(flags))
		found |= EMPTCP_PKT_PURE_ACK;
	if (backend == EMPTCP_TC && ((struct __sk_buff *)ctx)->gso_size)
		found |= EMPTCP_PKT_GSO;
	parsed->flags = found;
	if (flags & EMPTCP_SYN && parsed->payload_len)
		emptcp_forbid(parsed, EMPTCP_SYN_DATA);
}

static __always_inline int emptcp_parse_tcp(void *ctx, const __u8 *tcp, const __u8 *end,
					    struct emptcp_pkt *parsed, __u32 len, int backend)
{
	__u32 size, payload;

	if (tcp + EMPTCP_TCP_HEADER > end)
		return EMPTCP_PARSE_NONLINEAR;
	size = (tcp[12] >> 4) * 4;
	if (size < EMPTCP_TCP_HEADER)
		return emptcp_leave(parsed, EMPTCP_BAD_HEADER);
	if (tcp + size > end)
		return EMPTCP_PARSE_NONLINEAR;
	payload = parsed->l4 + size;
	if (!emptcp_parse_lengths(parsed, payload, len, emptcp_length(ctx, backend)))
		return EMPTCP_PARSE_LEAVE;
	parsed->size = sizeof(*parsed);
	parsed->backend = backend;
	parsed->redirect = 0;
	parsed->sum = 0;
	parsed->written = 0;
	parsed->written_rest = 0;
	emptcp_copy_header(tcp, parsed);
	__builtin_memset(parsed->scratch, 0, sizeof(parsed->scratch));
	emptcp_parse_flags(ctx, parsed, tcp[EMPTCP_TCP_FLAGS], len, backend);
	emptcp_forget_options(parsed);
	size -= EMPTCP_TCP_HEADER;
	if (!size)
		return EMPTCP_PARSE_TCP;
	emptcp_copy_options(tcp + EMPTCP_TCP_HEADER, end, parsed, size);
	if (emptcp_note_usual(parsed, size))
		return EMPTCP_PARSE_TCP;
	parsed->argument = size;
	emptcp_walk_options();
	return EMPTCP_PARSE_TCP;
}

/* A member of struct emptcp_pkt in its place in the eight bytes of the struct that it is among. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define EMPTCP_PLACE(member) (__builtin_offsetof(struct emptcp_pkt, member) % 8)
#else
#define EMPTCP_PLACE(member) \
	(8 - __builtin_offsetof(struct emptcp_pkt, member) % 8 - sizeof(((struct emptcp_pkt *)0)->member))
#endif
#define EMPTCP_PLACED(member, value)		((__u64)(value) << EMPTCP_PLACE(member) * 8)
#define EMPTCP_WRITE_WORD(parsed, first, value) WRITE_ONCE(*(__u64 *)&(parsed)->first, value)

/* The first three words of the parsed packet, of a usual one. */
struct emptcp_head {
	__u64 size_to_flags, l3_to_ip_end, payload_len_to_no_modify;
};

/* What few stages ask for, and takes some arithmetic. */
static __always_inline void emptcp_note_rest(void *ctx, struct emptcp_pkt *parsed, struct emptcp_head *head,
					     const struct emptcp_parse_config *config,
					     const struct emptcp_usual *usual, int backend)
{
	__u32 payload_len = usual->ip_len - sizeof(struct iphdr) - usual->size;

	head->size_to_flags |= EMPTCP_PLACED(size, sizeof(*parsed)) | EMPTCP_PLACED(hook, config->hook) |
			       EMPTCP_PLACED(flags, payload_len ? 0 : EMPTCP_PKT_PURE_ACK);
	if (backend == EMPTCP_TC && ((struct __sk_buff *)ctx)->gso_size)
		head->size_to_flags |= EMPTCP_PLACED(flags, EMPTCP_PKT_GSO);
	head->l3_to_ip_end |=
		EMPTCP_PLACED(payload, sizeof(struct ethhdr) + sizeof(struct iphdr) + usual->size) |
		EMPTCP_PLACED(ip_end, sizeof(struct ethhdr) + usual->ip_len);
	head->payload_len_to_no_modify = EMPTCP_PLACED(payload_len, payload_len) |
					 EMPTCP_PLACED(tcp_flags, usual->tcp[EMPTCP_TCP_FLAGS]) |
					 EMPTCP_PLACED(options_len, usual->size - EMPTCP_TCP_HEADER);
	EMPTCP_WRITE_WORD(parsed, scratch[0], 0);
	EMPTCP_WRITE_WORD(parsed, scratch[8], 0);
	parsed->netns = config->netns;
}

static __always_inline void emptcp_parse_usual_options(struct emptcp_pkt *parsed,
						       const struct emptcp_usual *usual, const __u8 *end)
{
	EMPTCP_WRITE_WORD(parsed, at[0], EMPTCP_PLACED(at[EMPTCP_DSS], EMPTCP_USUAL_HEADER));
	EMPTCP_WRITE_WORD(parsed, at[8], 0);
	EMPTCP_WRITE_WORD(parsed, len[0], EMPTCP_PLACED(len[EMPTCP_DSS], usual->dss_len));
	EMPTCP_WRITE_WORD(parsed, len[8], 0);
	emptcp_copy_options(usual->tcp + EMPTCP_TCP_HEADER, end, parsed, usual->size - EMPTCP_TCP_HEADER);
}

/*
 * Write down what the glance saw of a usual packet: what emptcp_parse_linear() would find, of it what stages
 * need. By words of eight bytes, as all this would be some forty stores.
 */
static __always_inline void emptcp_parse_usual(void *ctx, struct emptcp_pkt *parsed,
					       const struct emptcp_parse_config *config,
					       const struct emptcp_usual *usual, int backend)
{
	const __u32 l3 = sizeof(struct ethhdr), l4 = l3 + sizeof(struct iphdr);
	struct emptcp_head head = {
		EMPTCP_PLACED(backend, backend) | EMPTCP_PLACED(family, 4) |
			EMPTCP_PLACED(flags, EMPTCP_PKT_MPTCP),
		EMPTCP_PLACED(l3, l3) | EMPTCP_PLACED(l4, l4),
		0,
	};

	if (config->needs & EMPTCP_NEED_REST)
		emptcp_note_rest(ctx, parsed, &head, config, usual, backend);
	EMPTCP_WRITE_WORD(parsed, size, head.size_to_flags);
	EMPTCP_WRITE_WORD(parsed, l3, head.l3_to_ip_end);
	EMPTCP_WRITE_WORD(parsed, payload_len, head.payload_len_to_no_modify);
	EMPTCP_WRITE_WORD(parsed, reason,
			  EMPTCP_PLACED(timestamps, EMPTCP_TCP_HEADER + 2) |
				  EMPTCP_PLACED(subtypes, 1 << EMPTCP_DSS));
	if (config->needs & EMPTCP_NEED_OPTIONS)
		emptcp_parse_usual_options(parsed, usual, emptcp_data_end(ctx, backend));
	if (config->needs & EMPTCP_NEED_TCP)
		emptcp_copy_header(usual->tcp, parsed);
	if (config->needs & EMPTCP_NEED_KEY)
		emptcp_parse_key4(usual->tcp - sizeof(struct iphdr), (const __be16 *)usual->tcp, parsed);
	parsed->sum = 0;
	*(__u32 *)&parsed->written = 0;
	parsed->redirect = 0;
	parsed->length = usual->ip_len;
}

static __always_inline int emptcp_parse_linear(void *ctx, __u32 how, __u32 netns, int backend)
{
	const __u8 *data = emptcp_data(ctx, backend), *end = emptcp_data_end(ctx, backend), *ip, *tcp;
	const struct emptcp_parse_config config = emptcp_parse_how(how, netns);
	struct emptcp_pkt *parsed = emptcp_parsed();
	__u32 len = 0;
	int family, result;

	if (!parsed)
		return EMPTCP_PARSE_LEAVE;
	parsed->length = 0;
	parsed->flags = 0;
	parsed->no_modify = 0;
	parsed->reason = 0;
	if (config.l2)
		family = emptcp_parse_ethernet(data, end, parsed, emptcp_parse_skb_tag(ctx, parsed, backend));
	else
		family = emptcp_parse_raw(data, end, parsed);
	ip = data + (READ_ONCE(parsed->l3) & 31);
	if (family == 4)
		result = emptcp_parse_ip4(ip, end, parsed, &len);
	else if (family == 6)
		result = emptcp_parse_ip6(ctx, ip, end, parsed, backend, &len);
	else
		result = family < 0 ? EMPTCP_PARSE_NONLINEAR : EMPTCP_PARSE_LEAVE;
	if (result != EMPTCP_PARSE_TCP)
		return result;
	parsed->hook = config.hook;
	parsed->netns = config.netns;
	parsed->family = family;
	parsed->direction = 0;
	tcp = data + (READ_ONCE(parsed->l4) & EMPTCP_OFFSET_MASK);
	if (config.needs & EMPTCP_NEED_KEY && tcp + 4 <= end) {
		if (family == 4)
			emptcp_parse_key4(ip, (const __be16 *)tcp, parsed);
		else
			emptcp_parse_key6(ip, (const __be16 *)tcp, parsed);
	}
	return emptcp_parse_tcp(ctx, tcp, end, parsed, len, backend);
}

/* Verified apart, once for all that call it, and out of the way of what is usual. */
__weak __noinline int emptcp_parse_linear_xdp(struct xdp_md *ctx, __u32 how, __u32 netns)
{
	return emptcp_parse_linear(ctx, how, netns, EMPTCP_XDP);
}

__weak __noinline int emptcp_parse_linear_tc(struct __sk_buff *ctx, __u32 how, __u32 netns)
{
	return emptcp_parse_linear(ctx, how, netns, EMPTCP_TC);
}

/* Copy the head of an skb out of its pages. False: it is all there, or it can't be done. */
static __always_inline bool emptcp_pull(void *ctx)
{
	struct __sk_buff *skb = ctx;
	__u32 len = skb->len;

	if (emptcp_data(ctx, EMPTCP_TC) + len <= emptcp_data_end(ctx, EMPTCP_TC))
		return false;
	return !bpf_skb_pull_data(skb, len < EMPTCP_PULL ? len : EMPTCP_PULL);
}

/* Parse a packet that is not as usual: enum emptcp_parse_result, without EMPTCP_PARSE_NONLINEAR. */
static __always_inline int emptcp_parse_unusual(void *ctx, struct emptcp_pkt *parsed,
						const struct emptcp_parse_config *config, int backend)
{
	const __u32 how = emptcp_parse_how_of(config), netns = config->netns;
	int result;

	if (backend == EMPTCP_XDP) {
		result = emptcp_parse_linear_xdp(ctx, how, netns);
	} else {
		result = emptcp_parse_linear_tc(ctx, how, netns);
		if (result == EMPTCP_PARSE_NONLINEAR && emptcp_pull(ctx))
			result = emptcp_parse_linear_tc(ctx, how, netns);
	}
	return result == EMPTCP_PARSE_NONLINEAR ? emptcp_leave(parsed, EMPTCP_TRUNCATED) : result;
}

/* Parse the packet of `ctx` into `parsed`, also one that no policy can want. */
static __always_inline int emptcp_parse(void *ctx, struct emptcp_pkt *parsed,
					const struct emptcp_parse_config *config, int backend)
{
	struct emptcp_usual usual;

	if (emptcp_glance(ctx, config, &usual, backend) != EMPTCP_GLANCED_USUAL)
		return emptcp_parse_unusual(ctx, parsed, config, backend);
	emptcp_parse_usual(ctx, parsed, config, &usual, backend);
	return EMPTCP_PARSE_TCP;
}

/* Return from the program's function at once: what the compiler makes of `return` leads by way of the end.
 * Clang calls something where it takes code to be unreachable, from version 21 on. */
#if __clang_major__ < 21
#define EMPTCP_RETURN_NOW(parsed)                                      \
	do {                                                           \
		register struct emptcp_pkt *answer asm("r0") = parsed; \
                                                                       \
		asm volatile("exit" : : "r"(answer));                  \
		__builtin_unreachable();                               \
	} while (0)
#else
#define EMPTCP_RETURN_NOW(parsed) return parsed
#endif

/*
 * What core does first; emptcp_parse_how() tells what `how` and `netns` are. NULL: no policy can want the
 * packet, and nothing about it is to be counted. A `length` of 0: it is left alone, and parsed->reason says
 * why, if it is broken rather than not ours.
 */
static __always_inline struct emptcp_pkt *emptcp_begin(void *ctx, __u32 how, __u32 netns, int backend)
{
	const struct emptcp_parse_config config = emptcp_parse_how(how, netns);
	struct emptcp_usual usual;
	enum emptcp_glanced glanced = emptcp_glance(ctx, &config, &usual, backend);
	struct emptcp_pkt *parsed;

	if (emptcp_unlikely(glanced == EMPTCP_GLANCED_NOTHING))
		return NULL;
	parsed = emptcp_parsed();
	if (!parsed) /* never: a verifier that knows it drops this, if nothing else leads there */
		EMPTCP_RETURN_NOW(NULL);
	if (emptcp_likely(glanced == EMPTCP_GLANCED_USUAL)) {
		emptcp_parse_usual(ctx, parsed, &config, &usual, backend);
		EMPTCP_RETURN_NOW(parsed);
	}
	if (emptcp_parse_unusual(ctx, parsed, &config, backend) == EMPTCP_PARSE_TCP &&
	    !(config.needs & EMPTCP_NEED_PLAIN) && !(parsed->flags & EMPTCP_PKT_MPTCP))
		return NULL;
	return parsed;
}

#endif
