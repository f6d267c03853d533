/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Reading a packet, the same way at XDP and at TC.
 *
 * Pointers that these functions return are checked against the packet's end and good until the packet is
 * changed: every function of <emptcp/change.h> ends their life, and the verifier says so ("invalid mem
 * access"). TCP's header without its options is none of these: emptcp_tcp() has it as the stages before left
 * it, and in the packet it stands as it came in until the last one is done.
 */
#ifndef EMPTCP_PACKET_H
#define EMPTCP_PACKET_H

#include <emptcp/abi.h>
#include <emptcp/bpf.h>

/* Highest offset of a header from the first byte of the packet: 22 bytes of link layer, 40 of IPv6, eight
 * extension headers of 2048. The verifier wants to see a bound. */
#define EMPTCP_OFFSET_MASK 0x7fff

static __always_inline __u8 *emptcp_data(void *ctx, int backend)
{
	if (backend == EMPTCP_XDP)
		return (void *)(long)((struct xdp_md *)ctx)->data;
	return (void *)(long)((struct __sk_buff *)ctx)->data;
}

/* End of the bytes that can be reached by pointer. At TC the packet may go on behind it. */
static __always_inline __u8 *emptcp_data_end(void *ctx, int backend)
{
	if (backend == EMPTCP_XDP)
		return (void *)(long)((struct xdp_md *)ctx)->data_end;
	return (void *)(long)((struct __sk_buff *)ctx)->data_end;
}

/* Length of the whole packet from its first link-layer byte on, padding included. */
static __always_inline __u32 emptcp_length(void *ctx, int backend)
{
	if (backend == EMPTCP_TC)
		return ((struct __sk_buff *)ctx)->len;
	return emptcp_data_end(ctx, backend) - emptcp_data(ctx, backend);
}

/*
 * `offset` with a bound that the verifier sees. In assembler, because what the compiler knows to be in bounds
 * by a comparison it does not mask, and not every verifier remembers the comparison. Not volatile: the same
 * offset is masked once.
 */
static __always_inline __u64 emptcp_bounded(__u64 offset)
{
	asm("%0 &= %1" : "+r"(offset) : "i"(EMPTCP_OFFSET_MASK));
	return offset;
}

/* `size` bytes (a constant) at an offset that the parser found, or NULL. */
static __always_inline void *emptcp_parsed_bytes(const struct emptcp_handle *pkt, __u32 offset, __u32 size)
{
	__u8 *place = emptcp_data(pkt->ctx, pkt->backend) + emptcp_bounded(offset);

	if (place + size > emptcp_data_end(pkt->ctx, pkt->backend))
		return NULL;
	/* Else the compiler makes NULL out of it without a jump, and callers have to ask once more. */
	asm("" : "+r"(place));
	__builtin_assume(place);
	return place;
}

/* `size` bytes (a constant) at `offset` from the first byte of the packet, or NULL. */
EMPTCP_PUBLIC void *emptcp_bytes(const struct emptcp_handle *pkt, __u32 offset, __u32 size)
{
	void *place = emptcp_parsed_bytes(pkt, offset, size);

	return offset > EMPTCP_OFFSET_MASK ? NULL : place;
}

/* The TCP header without its options, as the stages before this one left it. It is no place in the packet, so
 * the pointer is good to the end; fields are changed by <emptcp/change.h> only. */
EMPTCP_PUBLIC struct tcphdr *emptcp_tcp(const struct emptcp_handle *pkt)
{
	return &pkt->parsed->tcp;
}

/* Let emptcp_tcp() have these twenty bytes of the packet, as they are. By fields where the packet's are
 * written by fields: a load of more waits for those of the packet before, if they are still under way to the
 * same place. */
static __always_inline void emptcp_copy_header(const void *tcp, struct emptcp_pkt *parsed)
{
	const __u16 *from = tcp;
	__u16 *to = (void *)&parsed->tcp;
	__u32 i;

	*(__u64 *)to = *(const __u64 *)from;
	*(__u32 *)(to + 4) = *(const __u32 *)(from + 4);
#pragma clang loop unroll(full)
	for (i = 6; i < sizeof(struct tcphdr) / sizeof(*to); i++)
		to[i] = READ_ONCE(from[i]);
}

/* The IPv4 header without its options; NULL when the packet is IPv6. */
EMPTCP_PUBLIC struct iphdr *emptcp_ip4(const struct emptcp_handle *pkt)
{
	if (pkt->parsed->family != 4)
		return NULL;
	return emptcp_parsed_bytes(pkt, pkt->parsed->l3, sizeof(struct iphdr));
}

/* The IPv6 header without its extension headers; NULL when the packet is IPv4. */
EMPTCP_PUBLIC struct ipv6hdr *emptcp_ip6(const struct emptcp_handle *pkt)
{
	if (pkt->parsed->family != 6)
		return NULL;
	return emptcp_parsed_bytes(pkt, pkt->parsed->l3, sizeof(struct ipv6hdr));
}

/* Copy `len` bytes (a constant) at `offset` from the packet's first byte to `to`, also from behind what
 * pointers reach at TC. False: the packet is shorter, `to` is unspecified. */
EMPTCP_PUBLIC bool emptcp_read(const struct emptcp_handle *pkt, __u32 offset, void *to, __u32 len)
{
	const void *from;

	if (pkt->backend == EMPTCP_TC)
		return !bpf_skb_load_bytes(pkt->ctx, offset, to, len);
	from = emptcp_bytes(pkt, offset, len);
	if (!from)
		return false;
	__builtin_memcpy(to, from, len);
	return true;
}

/* Packets on the wire that this one stands for: more than one if it is merged (GSO, GRO). */
EMPTCP_PUBLIC __u32 emptcp_wire_packets(const struct emptcp_handle *pkt)
{
	__u32 segments = 0;

	if (pkt->backend == EMPTCP_TC && pkt->parsed->flags & EMPTCP_PKT_GSO)
		segments = ((struct __sk_buff *)pkt->ctx)->gso_segs;
	return segments ? segments : 1;
}

/* Bytes on the wire from the IP header on; a merged packet's headers count once per packet. */
EMPTCP_PUBLIC __u32 emptcp_wire_bytes(const struct emptcp_handle *pkt)
{
	return emptcp_wire_packets(pkt) * (pkt->parsed->payload - pkt->parsed->l3) + pkt->parsed->payload_len;
}

/* Whether this is an ACK without payload, SYN, FIN and RST. */
EMPTCP_PUBLIC bool emptcp_is_pure_ack(const struct emptcp_handle *pkt)
{
	return pkt->parsed->flags & EMPTCP_PKT_PURE_ACK;
}

/* Sixteen bytes that the stages of one packet share; zero when the packet comes in. They belong to no plugin:
 * whoever writes them says in its README what stands where, and in which byte 0 means that it did not run. */
EMPTCP_PUBLIC void *emptcp_scratch(const struct emptcp_handle *pkt)
{
	return pkt->parsed->scratch;
}

/* The same as a struct of the writer's, which readers repeat or include. */
#define EMPTCP_SCRATCH(pkt, type)                                                                      \
	({                                                                                             \
		_Static_assert(sizeof(type) <= EMPTCP_SCRATCH_SIZE, "larger than a packet's scratch"); \
		(type *)emptcp_scratch(pkt);                                                           \
	})

#endif
