/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sending a packet out of a device of the actor's choice, at TC. Whatever the kernel is told to send out of a
 * device that is gone or down it drops, so an actor asks for the device first:
 *
 *	struct emptcp_device link;
 *
 *	if (!emptcp_find_device(pkt, param->to, &link) || !link.up)
 *		return emptcp_skip(pkt, EMPTCP_NO_LINK);
 *	return emptcp_redirect(pkt, param->to);
 *
 * The manifest says backends = ["tc"] and verdicts with "REDIRECT". At XDP devices can't be asked for.
 */
#ifndef EMPTCP_REDIRECT_H
#define EMPTCP_REDIRECT_H

#include <emptcp/abi.h>
#include <emptcp/actor.h>
#include <emptcp/bpf.h>
#include <emptcp/change.h>
#include <emptcp/kernel.h>
#include <emptcp/packet.h>

/* Devices of one slot of the kernel's table of 256: enough for 16,000 of them. */
#define EMPTCP_DEVICES_A_SLOT 64

#define EMPTCP_DEVICE_ETHERNET 1 /* ARPHRD_ETHER */

/* A device, as emptcp_find_device() found it. */
struct emptcp_device {
	__u32 mtu;
	__u16 type; /* ARPHRD_..: EMPTCP_DEVICE_ETHERNET */
	__u8 up;    /* started, with a carrier */
	__u8 reserved;
	__u8 address[6]; /* of an Ethernet device */
	__u8 reserved2[2];
};

/*
 * A load from an address that bpf_rdonly_cast() gave a type takes a small part of a call of
 * bpf_probe_read_kernel(); from a bad one it gives zero. That came with Linux 6.2, but only since 6.4 may a
 * program ask whether there is a function: it asks for bpf_iter_num_destroy(), which came then.
 */
struct bpf_iter_num {
	__u64 opaque;
};

extern void *bpf_rdonly_cast(const void *address, __u32 type) __weak SEC(".ksyms");
extern void bpf_iter_num_destroy(struct bpf_iter_num *numbers) __weak SEC(".ksyms");

#define EMPTCP_KERNEL_TYPED(object) \
	((typeof(object))bpf_rdonly_cast(object, __builtin_btf_type_id(*(object), 1)))

/* Read a member of one of the kernel's structures; false: nothing is there. */
#define EMPTCP_KERNEL_READ(to, object, member)                                                       \
	(bpf_iter_num_destroy                                                                        \
		 ? (__builtin_memcpy(to, &EMPTCP_KERNEL_TYPED(object)->member, sizeof(*(to))), true) \
		 : !bpf_probe_read_kernel(to, sizeof(*(to)), &(object)->member))

/* The first device of the slot of `ifindex`, in the namespace that the packet passes. */
static __always_inline const struct hlist_node *emptcp_device_slot(const void *ctx, __u32 ifindex)
{
	const struct sk_buff *skb = ctx; /* it is: the kernel rewrites only loads through the context */
	const struct net_device *device;
	const struct hlist_head *slots;
	const struct hlist_node *first;
	const struct net *net;

	if (!EMPTCP_KERNEL_READ(&device, skb, dev) || !EMPTCP_KERNEL_READ(&net, device, nd_net.net) ||
	    !EMPTCP_KERNEL_READ(&slots, net, dev_index_head) ||
	    !EMPTCP_KERNEL_READ(&first, slots + (ifindex & 255), first))
		return NULL;
	return first;
}

static __always_inline const struct net_device *emptcp_net_device(const void *ctx, __u32 ifindex)
{
	const struct hlist_node *node = emptcp_device_slot(ctx, ifindex);
	const struct net_device *device;
	int i, index;

#pragma clang loop unroll(disable)
	for (i = 0; node && i < EMPTCP_DEVICES_A_SLOT; i++) {
		device = (const void *)node -
			 __builtin_preserve_field_info(device->index_hlist, EMPTCP_FIELD_BYTE_OFFSET);
		if (!EMPTCP_KERNEL_READ(&index, device, ifindex))
			return NULL;
		if (index == (int)ifindex)
			return device;
		if (!EMPTCP_KERNEL_READ(&node, node, next))
			return NULL;
	}
	return NULL;
}

/* What the kernel knows now of a device of the packet's namespace; false: there is none, or this is XDP. */
EMPTCP_PUBLIC bool emptcp_find_device(const struct emptcp_handle *pkt, __u32 ifindex,
				      struct emptcp_device *found)
{
	const struct net_device *device;
	const struct ethhdr *address; /* its first member is one */
	unsigned long state;

	if (pkt->backend != EMPTCP_TC)
		return false;
	device = emptcp_net_device(pkt->ctx, ifindex);
	if (!device || !EMPTCP_KERNEL_READ(&state, device, state) ||
	    !EMPTCP_KERNEL_READ(&found->mtu, device, mtu) ||
	    !EMPTCP_KERNEL_READ(&found->type, device, type) ||
	    !EMPTCP_KERNEL_READ(&address, device, dev_addr))
		return false;
	found->up = (state & 1) && !(state & 4);
	return EMPTCP_KERNEL_READ(&found->address, address, h_dest);
}

/* Bytes of the longest IP packet that this one is on the wire. Volatile: the compiler would load through one
 * of two addresses, and the verifier takes no address within the context. */
EMPTCP_PUBLIC __u32 emptcp_wire_longest(const struct emptcp_handle *pkt)
{
	__u32 headers = pkt->parsed->payload - pkt->parsed->l3;

	if (pkt->backend == EMPTCP_TC && pkt->parsed->flags & EMPTCP_PKT_GSO)
		return headers + READ_ONCE(((struct __sk_buff *)pkt->ctx)->gso_size);
	return headers + pkt->parsed->payload_len;
}

/*
 * The next hop of the route to the packet's destination that goes out of a device; false: there is none, or
 * the device does not forward. Of IPv6's routes the kernel looks only at those of the best metric.
 */
EMPTCP_PUBLIC bool emptcp_find_next_hop(const struct emptcp_handle *pkt, __u32 ifindex,
					struct bpf_redir_neigh *to)
{
	struct bpf_fib_lookup route = {.ifindex = ifindex, .l4_protocol = IPPROTO_TCP};
	const struct ipv6hdr *ip6 = emptcp_ip6(pkt);
	const struct iphdr *ip4 = emptcp_ip4(pkt);
	long answer;

	if (ip4) {
		route.family = AF_INET;
		route.src[0] = ip4->saddr;
		route.dst[0] = ip4->daddr;
	} else if (ip6) {
		route.family = AF_INET6;
		__builtin_memcpy(route.src, ip6->saddr, sizeof(route.src));
		__builtin_memcpy(route.dst, ip6->daddr, sizeof(route.dst));
	} else {
		return false;
	}
	answer = bpf_fib_lookup(pkt->ctx, &route, sizeof(route), BPF_FIB_LOOKUP_OUTPUT);
	if (answer != BPF_FIB_LKUP_RET_SUCCESS && answer != BPF_FIB_LKUP_RET_NO_NEIGH)
		return false;
	to->nh_family = route.family; /* a route of IPv4 can have a next hop of IPv6 */
	__builtin_memcpy(to->nh, route.dst, sizeof(to->nh));
	return route.ifindex == ifindex;
}

/* Take one hop of what the packet has left to live, as a router does. Refused: EMPTCP_NO_LINK with none left.
 */
EMPTCP_PUBLIC bool emptcp_take_hop(const struct emptcp_handle *pkt)
{
	__u32 offset = pkt->parsed->l3 + (pkt->parsed->family == 4 ? 8 : 7);
	const __u8 *place = emptcp_bytes(pkt, offset, 1);
	__u8 left;

	if (!place)
		return emptcp_refuse(pkt, EMPTCP_TRUNCATED);
	left = *place;
	if (left <= 1)
		return emptcp_refuse(pkt, EMPTCP_NO_LINK);
	if (pkt->parsed->family == 4 ? emptcp_store_ip_byte(pkt, pkt->parsed->l3 + 8, left, left - 1)
				     : emptcp_store_ip_byte(pkt, pkt->parsed->l3 + 7, left, left - 1))
		return true;
	return emptcp_refuse(pkt, EMPTCP_REFUSED);
}

/* Write the Ethernet source address. Refused: EMPTCP_NO_LINK where the packet does not begin with Ethernet.
 */
EMPTCP_PUBLIC bool emptcp_set_source(const struct emptcp_handle *pkt, const __u8 *address)
{
	const __u32 place = __builtin_offsetof(struct ethhdr, h_source);
	void *bytes;

	if (pkt->parsed->l3 < sizeof(struct ethhdr))
		return emptcp_refuse(pkt, EMPTCP_NO_LINK);
	if (pkt->backend == EMPTCP_TC)
		return !bpf_skb_store_bytes(pkt->ctx, place, address, 6, 0) ||
		       emptcp_refuse(pkt, EMPTCP_REFUSED);
	bytes = emptcp_bytes(pkt, place, 6);
	if (!bytes)
		return emptcp_refuse(pkt, EMPTCP_TRUNCATED);
	__builtin_memcpy(bytes, address, 6);
	return true;
}

/* Let the packet leave by a device as it is: return what this answers. */
EMPTCP_PUBLIC int emptcp_redirect(const struct emptcp_handle *pkt, __u32 ifindex)
{
	if (!ifindex)
		return emptcp_skip(pkt, EMPTCP_NO_LINK);
	pkt->parsed->redirect = ifindex;
	return EMPTCP_REDIRECT;
}

/*
 * Let the packet leave by a device to a next hop, with the link-layer addresses that this takes, which the
 * kernel looks up or asks for: return what this answers. A VLAN tag in the skb would go along.
 */
EMPTCP_PUBLIC int emptcp_redirect_neigh(const struct emptcp_handle *pkt, __u32 ifindex,
					struct bpf_redir_neigh *to)
{
	if (pkt->backend != EMPTCP_TC || bpf_redirect_neigh(ifindex, to, sizeof(*to), 0) != TC_ACT_REDIRECT)
		return emptcp_skip(pkt, EMPTCP_REFUSED);
	pkt->parsed->redirect = 0;
	return EMPTCP_REDIRECT;
}

/* Set the bits of skb->mark that `mask` has, for rules and filters further on. */
EMPTCP_PUBLIC bool emptcp_mark(const struct emptcp_handle *pkt, __u32 mark, __u32 mask)
{
	struct __sk_buff *skb = pkt->ctx;

	if (pkt->backend != EMPTCP_TC)
		return emptcp_refuse(pkt, EMPTCP_REFUSED);
	skb->mark = (skb->mark & ~mask) | (mark & mask);
	return true;
}

#endif
