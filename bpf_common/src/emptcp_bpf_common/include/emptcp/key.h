/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A key tells what identifies a packet in sets and maps. Its fragment writes the key and answers whether the
 * packet has one; core looks it up.
 *
 *	struct port_pair { __u16 low, high; };
 *
 *	EMPTCP_KEY(port_pair, pkt, struct port_pair, key)
 *	{
 *		key->low = emptcp_port(pkt, 0);
 *		key->high = emptcp_port(pkt, 1);
 *		return true;
 *	}
 *
 * The manifest tells how a key is written, field by field: `[[key]] name = "port_pair" fields = ["port",
 * "port"]`. The fields stand one after another without holes, so KEY_T has exactly their size, at most
 * EMPTCP_KEY_SIZE bytes; where C would leave a hole it is packed. `key` is not zero at entry: the fragment
 * writes all of it before it answers true.
 */
#ifndef EMPTCP_KEY_H
#define EMPTCP_KEY_H

#include <emptcp/address.h>
#include <emptcp/fragment.h>
#include <emptcp/option.h>
#include <emptcp/packet.h>

/* A field of type endpoint: address and port as on the wire, IPv4 as ::ffff:a.b.c.d. */
struct emptcp_endpoint {
	__be32 addr[4];
	__be16 port;
} __attribute__((packed, aligned(2)));

/* A field of type prefix. A packet has one address, so it writes `bits` = 128. */
struct emptcp_prefix_key {
	__u32 bits;
	__be32 word[4];
};

/* The body of a key: answers whether the packet has one, which it wrote to `key`. */
#define EMPTCP_KEY(name, pkt, KEY_T, key)                                                              \
	_Static_assert(sizeof(KEY_T) <= EMPTCP_KEY_SIZE, "a key of more than EMPTCP_KEY_SIZE bytes");  \
	EMPTCP_FRAGMENT(EMPTCP_KIND_KEY, EMPTCP_TAKES(KEY_T, 2), bool, EMPTCP_ANSWER, name, pkt, void, \
			emptcp_no_param, KEY_T, key)

/* Write one end of the packet, an index into key.addr and key.port, to a field of type endpoint. */
EMPTCP_PUBLIC void emptcp_write_endpoint(const struct emptcp_handle *pkt, __u32 end,
					 struct emptcp_endpoint *to)
{
	__builtin_memcpy(to->addr, pkt->parsed->key.addr[end & 1], sizeof(to->addr));
	to->port = pkt->parsed->key.port[end & 1];
}

#endif
