/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Every changing helper as an ordinary program: parse, do what the map says, tell how it went. */
#include <emptcp/actor.h>
#include <emptcp/finish.h>
#include <emptcp/parse.h>

enum job {
	NOTHING,
	INSERT,
	REMOVE,
	REWRITE,     /* two bytes */
	REWRITE_ODD, /* five bytes */
	CAP,
	INSERT_PRIO,
	REWRITE_OPTION,
};

struct order {
	struct emptcp_parse_config parse;
	__u32 job;
	__u32 number; /* subtype, offset or window */
	__u32 len;
	__u32 unsafe;
	__u32 tag; /* TC: push this VLAN tag into the skb first */
	__u8 scale[2];
	__u8 bytes[40];
};

struct outcome {
	__u32 parsed;
	__u32 done;
	struct emptcp_pkt found;
	__u64 packets; /* of TCP, since the map was written last */
	__u64 changed;
	__u64 merged; /* changed ones that stand for several wire packets */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct order);
} order SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct outcome);
} outcome SEC(".maps");

static __always_inline bool insert(const struct emptcp_handle *pkt, const struct order *order)
{
	__builtin_memcpy(emptcp_option_space(pkt), order->bytes, sizeof(order->bytes));
	return emptcp_insert_built(pkt, order->len, order->unsafe);
}

static __always_inline bool insert_prio(const struct emptcp_handle *pkt)
{
	const __u8 option[] = {EMPTCP_KIND_MPTCP, 3, EMPTCP_MP_PRIO << 4 | EMPTCP_PRIO_BACKUP};

	return emptcp_insert_option(pkt, option, sizeof(option));
}

static __always_inline bool cap(const struct emptcp_handle *pkt, const struct order *order)
{
	return emptcp_cap_window(pkt, emptcp_tcp(pkt), order->number);
}

static __always_inline bool act(const struct emptcp_handle *pkt, const struct order *order)
{
	__u8 bytes[5];

	__builtin_memcpy(bytes, order->bytes, sizeof(bytes));
	switch (order->job) {
	case INSERT:
		return insert(pkt, order);
	case REMOVE:
		return emptcp_remove_option(pkt, order->number & 15, order->unsafe);
	case REWRITE:
		return emptcp_rewrite_any(pkt, order->number, bytes, 2, order->unsafe);
	case REWRITE_ODD:
		return emptcp_rewrite_any(pkt, order->number, bytes, 5, order->unsafe);
	case CAP:
		return cap(pkt, order);
	case INSERT_PRIO:
		return insert_prio(pkt);
	case REWRITE_OPTION:
		return emptcp_rewrite_option(pkt, order->number & 15, order->len, bytes, 1, order->unsafe);
	}
	return false;
}

static __always_inline void count(struct outcome *outcome, bool changed)
{
	if (outcome->parsed != EMPTCP_PARSE_TCP)
		return;
	__sync_fetch_and_add(&outcome->packets, 1);
	if (!changed)
		return;
	__sync_fetch_and_add(&outcome->changed, 1);
	if (outcome->found.flags & EMPTCP_PKT_GSO)
		__sync_fetch_and_add(&outcome->merged, 1);
}

static __always_inline int change(void *ctx, int backend)
{
	__u32 first = 0;
	const struct order *order_ = bpf_map_lookup_elem(&order, &first);
	struct outcome *outcome_ = bpf_map_lookup_elem(&outcome, &first);
	struct emptcp_pkt *parsed = emptcp_parsed();
	struct emptcp_flow flow = {};
	bool changed = false;
	const struct emptcp_handle pkt = {.ctx = ctx, .parsed = parsed, .flow = &flow, .backend = backend};

	if (!order_ || !outcome_ || !parsed)
		return -1;
	flow.wscale[0] = order_->scale[0];
	flow.wscale[1] = order_->scale[1];
	outcome_->done = 0;
	outcome_->parsed = emptcp_parse(ctx, parsed, &order_->parse, backend);
	if (outcome_->parsed == EMPTCP_PARSE_TCP) {
		outcome_->done = act(&pkt, order_);
		changed = parsed->written | parsed->written_rest | parsed->sum;
		emptcp_put_header(&pkt);
		emptcp_take_header(&pkt);
	}
	__builtin_memcpy(&outcome_->found, parsed, sizeof(*parsed));
	count(outcome_, changed);
	return backend == EMPTCP_XDP ? XDP_PASS : TC_ACT_OK;
}

SEC("xdp")
int change_xdp(struct xdp_md *ctx)
{
	return change(ctx, EMPTCP_XDP);
}

SEC("tc")
int change_tc(struct __sk_buff *ctx)
{
	return change(ctx, EMPTCP_TC);
}

/* As above, with a tag that no byte of the frame shows. */
SEC("tc")
int change_tagged_tc(struct __sk_buff *ctx)
{
	__u32 first = 0;
	const struct order *order_ = bpf_map_lookup_elem(&order, &first);

	if (!order_ || bpf_skb_vlan_push(ctx, bpf_htons(ETH_P_8021Q), order_->tag))
		return -1;
	return change(ctx, EMPTCP_TC);
}

/* What a wrong change looks like: one is added to the checksum field, whatever it holds. */
SEC("tc")
int spoil_tc(struct __sk_buff *ctx)
{
	const struct emptcp_parse_config config = {.l2 = sizeof(struct ethhdr)};
	struct emptcp_pkt *parsed = emptcp_parsed();
	const struct emptcp_handle pkt = {.ctx = ctx, .parsed = parsed, .backend = EMPTCP_TC};
	const __sum16 *check;
	__sum16 wrong;

	if (!parsed || emptcp_parse(ctx, parsed, &config, EMPTCP_TC) != EMPTCP_PARSE_TCP)
		return TC_ACT_OK;
	check = emptcp_bytes(&pkt, parsed->l4 + EMPTCP_TCP_CHECK, sizeof(*check));
	if (!check)
		return TC_ACT_OK;
	wrong = *check + 1;
	bpf_skb_store_bytes(ctx, parsed->l4 + EMPTCP_TCP_CHECK, &wrong, sizeof(wrong), 0);
	return TC_ACT_OK;
}
