/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Addresses and prefixes as parameters, and the addresses of a packet. IPv4 stands as ::ffff:a.b.c.d, so that
 * one comparison serves both families. The packet's addresses and ports are only told to stages that read the
 * key (manifest: reads = ["key"]).
 */
#ifndef EMPTCP_ADDRESS_H
#define EMPTCP_ADDRESS_H

#include <emptcp/abi.h>
#include <emptcp/bpf.h>

/* A parameter of type ipaddr. */
struct emptcp_address {
	__be32 word[4];
};

/* A parameter of type prefix. `bits` of 128: 10.0.0.0/8 has 104. No bits: every address. */
struct emptcp_prefix {
	__be32 word[4];
	__u32 bits;
};

/* The end that sent the packet: an index into key.addr and key.port. */
EMPTCP_PUBLIC __u32 emptcp_source(const struct emptcp_handle *pkt)
{
	return pkt->parsed->direction & 1;
}

/* The end that the packet is for. */
EMPTCP_PUBLIC __u32 emptcp_target(const struct emptcp_handle *pkt)
{
	return ~pkt->parsed->direction & 1;
}

/* The port of one end, host order as a parameter of type port. */
EMPTCP_PUBLIC __u16 emptcp_port(const struct emptcp_handle *pkt, __u32 end)
{
	return bpf_ntohs(pkt->parsed->key.port[end & 1]);
}

/* Half of what two addresses differ by: 64 bits in the machine's order. */
static __always_inline __u64 emptcp_address_difference(const __be32 *one, const __be32 *other)
{
	return (__u64)bpf_ntohl(one[0] ^ other[0]) << 32 | bpf_ntohl(one[1] ^ other[1]);
}

/* Whether the address of one end is in the prefix. */
EMPTCP_PUBLIC bool emptcp_in_prefix(const struct emptcp_handle *pkt, __u32 end,
				    const struct emptcp_prefix *prefix)
{
	const __be32 *address = pkt->parsed->key.addr[end & 1];
	__u64 differ = emptcp_address_difference(address, prefix->word);
	__u32 free = 64 - prefix->bits; /* bits that may differ, of those that are looked at last */

	/* Few branches: the verifier goes on behind each of their ends. */
	if (prefix->bits > 64) {
		if (differ)
			return false;
		differ = emptcp_address_difference(address + 2, prefix->word + 2);
		free += 64;
	}
	/* In two steps, as a shift by 64 is undefined. */
	return !(differ >> (free >> 1) >> (free - (free >> 1)));
}

#endif
