/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What stands beside a stage that is measured alone: stages that do nothing, and stages that undo what it
 * did, so that each run of a repeated trial does the same work. They do the same work themselves whether
 * there is something to undo or not; only what brings a packet's length back is spared when it has its
 * length.
 */
#include <emptcp/actor.h>
#include <emptcp/finish.h>
#include <emptcp/selector.h>

#define HEADERS 120 /* IPv6, TCP and all options, from the IP header on */
#define STATES	448 /* the plugins' part of an entry of the flow table */

EMPTCP_ACTOR(nothing, pkt, void, param)
{
	return EMPTCP_NEXT;
}

struct told {
	__u64 number;
};

/* An event for every packet, which no plugin should send. */
EMPTCP_ACTOR_STATE(tell, pkt, void, param, struct told, told)
{
	told->number++;
	emptcp_event(pkt, 1, &told->number, sizeof(told->number));
	return EMPTCP_NEXT;
}

EMPTCP_SELECTOR(never, pkt, void, param)
{
	return false;
}

struct restore {
	__u32 length; /* of the packet */
	__u32 size;   /* of its headers from the IP header on: a multiple of 4 */
	__u32 words[HEADERS / 4];
};

static __always_inline void bring_length_back(const struct emptcp_handle *pkt, __u32 length)
{
	__u32 now = emptcp_length(pkt->ctx, pkt->backend);

	if (now == length)
		return;
	if (pkt->backend == EMPTCP_XDP)
		bpf_xdp_adjust_tail(pkt->ctx, (int)(length - now));
	else
		bpf_skb_change_tail(pkt->ctx, length, 0);
}

/* Does what core does behind the last stage, for it belongs to what the stages before cost, then writes the
 * packet's headers as they were. */
EMPTCP_ACTOR(restore, pkt, struct restore, param)
{
	__u32 l3 = pkt->parsed->l3, size = param->size, i, *place;

	emptcp_put_header(pkt);
	bring_length_back(pkt, param->length);
	if (size < 4 || size > HEADERS)
		return EMPTCP_NEXT;
	if (pkt->backend == EMPTCP_TC) {
		bpf_skb_store_bytes(pkt->ctx, l3, param->words, (size - 1 & 0x7f) + 1, 0);
		return EMPTCP_NEXT;
	}
#pragma clang loop unroll(disable)
	for (i = 0; i < HEADERS / 4; i++) {
		if (i * 4 >= size)
			break;
		place = emptcp_bytes(pkt, l3 + i * 4, sizeof(*place));
		if (!place)
			break;
		*place = param->words[i];
	}
	return EMPTCP_NEXT;
}

/* Every plugin's state of the subflow is as it was before the first packet. */
EMPTCP_ACTOR(forget, pkt, void, param)
{
	__u64 *words = (void *)(pkt->flow + 1);
	__u32 i;

	if (!pkt->flow)
		return EMPTCP_NEXT;
#pragma clang loop unroll(full)
	for (i = 0; i < STATES / 8; i++)
		*(volatile __u64 *)&words[i] = 0;
	return EMPTCP_NEXT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
