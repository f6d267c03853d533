/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Every function that plugins have for packets, in one run: all that read, then one that changes. Orders and
 * answers stand in maps that the fuzzer has in its memory. */
#include <emptcp/actor.h>
#include <emptcp/address.h>
#include <emptcp/connection.h>
#include <emptcp/finish.h>
#include <emptcp/flow.h>
#include <emptcp/glance.h>
#include <emptcp/key.h>
#include <emptcp/kind.h>
#include <emptcp/parse.h>
#include <emptcp/redirect.h>

#define MMAPABLE (1 << 10)

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum job {
	NOTHING,
	INSERT_BUILT,
	INSERT,
	REMOVE,
	REWRITE,     /* two bytes */
	REWRITE_ODD, /* five bytes */
	REWRITE_OPTION,
	CAP,
	MARK,
	SKIP,
	EVENT,
	GOTO,
	REMOVE_KIND,
	HOP,
	SOURCE,
	SKB_MARK,
	LEAVE,
	NEIGH,
};

#define FOUND 0xff /* as a place: where emptcp_find_kind() says */

struct order {
	struct emptcp_parse_config parse;
	__u32 job;
	__u32 number; /* subtype, offset, window, reason, chain or place */
	__u32 len;
	__u32 unsafe;
	__u32 tag; /* TC: push this VLAN tag into the skb first */
	__u8 scale[2];
	__u8 bytes[40];
	__u8 kind;
	__u8 reserved;
	__u32 exid;
	__be32 token[2];
	struct emptcp_prefix prefix;
};

enum pointer {
	HAS_TCP = 1 << 0,
	HAS_IP4 = 1 << 1,
	HAS_IP6 = 1 << 2,
	HAS_BYTES = 1 << 3,
	HAS_READ = 1 << 4,
	HAS_TIMESTAMPS = 1 << 5,
	HAS_DSS = 1 << 6,
	HAS_JOIN = 1 << 7,
	HAS_FLOW = 1 << 8,
	HAS_GLANCE = 1 << 9,
	HAS_SCRATCH = 1 << 10, /* not zero at entry */
};

struct answer {
	__u32 parsed;
	__u32 done;
	struct emptcp_dss dss;
	__u32 pointers;
	__u32 wire_packets;
	__u32 wire_bytes;
	__u32 pure;
	__u32 has;
	__u16 option_at[EMPTCP_SUBTYPES];
	__u8 option_len[EMPTCP_SUBTYPES];
	__u8 heads[EMPTCP_SUBTYPES][4]; /* of emptcp_find() */
	__u8 tcp[20];
	__u8 ip4[20];
	__u8 ip6[40];
	__u8 bytes[8]; /* at order.number */
	__u8 read[8];
	struct emptcp_timestamps timestamps;
	struct emptcp_endpoint ends[2];
	__u16 port[2];
	__u8 inside[2]; /* of order.prefix */
	__u32 source;
	__u32 target;
	__u32 connection[2];
	__u32 place;   /* of order.kind */
	__u8 kind[16]; /* bytes from there on */
	__u32 chain;   /* after the job */
	__u32 longest; /* of emptcp_wire_longest() */
	__u32 devices; /* bit 0: the first one is found, bit 1: one that is not there */
	struct emptcp_pkt before;
	struct emptcp_pkt after;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct order);
} order SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct answer);
} answer SEC(".maps");

static __always_inline __u32 read_headers(const struct emptcp_handle *pkt, const struct order *order,
					  struct answer *answer)
{
	const struct tcphdr *tcp = emptcp_tcp(pkt);
	const struct iphdr *ip4 = emptcp_ip4(pkt);
	const struct ipv6hdr *ip6 = emptcp_ip6(pkt);
	const void *bytes = emptcp_bytes(pkt, order->number, sizeof(answer->bytes));
	__u32 found = 0;

	if (tcp) {
		__builtin_memcpy(answer->tcp, tcp, sizeof(answer->tcp));
		found |= HAS_TCP;
	}
	if (ip4) {
		__builtin_memcpy(answer->ip4, ip4, sizeof(answer->ip4));
		found |= HAS_IP4;
	}
	if (ip6) {
		__builtin_memcpy(answer->ip6, ip6, sizeof(answer->ip6));
		found |= HAS_IP6;
	}
	if (bytes) {
		__builtin_memcpy(answer->bytes, bytes, sizeof(answer->bytes));
		found |= HAS_BYTES;
	}
	if (emptcp_read(pkt, order->number, answer->read, sizeof(answer->read)))
		found |= HAS_READ;
	return found;
}

static __always_inline __u32 read_options(const struct emptcp_handle *pkt, struct answer *answer)
{
	const struct emptcp_timestamps *timestamps = emptcp_timestamps(pkt);
	__u32 found = 0, i;

	answer->has = 0;
#pragma clang loop unroll(full)
	for (i = 0; i < EMPTCP_SUBTYPES; i++) {
		const __u8 *option = emptcp_find(pkt, i, 3);

		if (emptcp_has(pkt, i))
			answer->has |= 1 << i;
		answer->option_at[i] = emptcp_option_at(pkt, i);
		answer->option_len[i] = emptcp_option_len(pkt, i);
		if (option)
			__builtin_memcpy(answer->heads[i], option, 3);
	}
	if (timestamps) {
		__builtin_memcpy(&answer->timestamps, timestamps, sizeof(*timestamps));
		found |= HAS_TIMESTAMPS;
	}
	if (emptcp_read_dss(pkt, &answer->dss))
		found |= HAS_DSS;
	if (EMPTCP_OPTION(pkt, EMPTCP_MP_JOIN, struct emptcp_mp_join_synack))
		found |= HAS_JOIN;
	return found;
}

static __always_inline __u32 read_rest(const struct emptcp_handle *pkt, struct answer *answer)
{
	__u64 *scratch = emptcp_scratch(pkt);
	__u32 found = 0;

	answer->wire_packets = emptcp_wire_packets(pkt);
	answer->wire_bytes = emptcp_wire_bytes(pkt);
	answer->pure = emptcp_is_pure_ack(pkt);
	if (scratch[0] | scratch[1])
		found |= HAS_SCRATCH;
	*EMPTCP_SCRATCH(pkt, __u64) = emptcp_now();
	if (emptcp_find_flow(pkt->parsed))
		found |= HAS_FLOW;
	return found;
}

static __always_inline void read_ends(const struct emptcp_handle *pkt, const struct order *order,
				      struct answer *answer)
{
	__u32 end;

	answer->source = emptcp_source(pkt);
	answer->target = emptcp_target(pkt);
#pragma clang loop unroll(full)
	for (end = 0; end < 2; end++) {
		emptcp_write_endpoint(pkt, end, &answer->ends[end]);
		answer->port[end] = emptcp_port(pkt, end);
		answer->inside[end] = emptcp_in_prefix(pkt, end, &order->prefix);
		answer->connection[end] = emptcp_connection(pkt, end);
	}
}

static __always_inline void read_kind(const struct emptcp_handle *pkt, const struct order *order,
				      struct answer *answer)
{
	__u32 i;

	answer->place = emptcp_find_kind(pkt, order->kind, order->exid);
#pragma clang loop unroll(full)
	for (i = 0; i < sizeof(answer->kind); i++)
		answer->kind[i] = emptcp_kind_byte(pkt, answer->place, i);
}

static __always_inline void read_devices(const struct emptcp_handle *pkt, struct answer *answer)
{
	struct emptcp_device device;
	struct bpf_redir_neigh to;

	answer->longest = emptcp_wire_longest(pkt);
	answer->devices = emptcp_find_device(pkt, 1, &device);
	answer->devices |= emptcp_find_device(pkt, 0x7fffffff, &device) << 1;
	answer->devices |= emptcp_find_next_hop(pkt, 0x7fffffff, &to) << 2;
}

static __always_inline bool leave(const struct emptcp_handle *pkt, const struct order *order)
{
	struct bpf_redir_neigh to = {.nh_family = AF_INET};

	if (order->job == NEIGH)
		return emptcp_redirect_neigh(pkt, order->number, &to) == EMPTCP_REDIRECT;
	return emptcp_redirect(pkt, order->number) == EMPTCP_REDIRECT;
}

static __always_inline bool insert_built(const struct emptcp_handle *pkt, const struct order *order)
{
	__builtin_memcpy(emptcp_option_space(pkt), order->bytes, sizeof(order->bytes));
	return emptcp_insert_built(pkt, order->len, order->unsafe);
}

static __always_inline bool remove_kind(const struct emptcp_handle *pkt, const struct order *order)
{
	__u32 place = order->number;

	if (place == FOUND)
		place = emptcp_find_kind(pkt, order->kind, order->exid);
	return emptcp_remove_kind(pkt, place, order->unsafe);
}

static __always_inline bool act(const struct emptcp_handle *pkt, const struct order *order)
{
	__u8 bytes[12];

	__builtin_memcpy(bytes, order->bytes, sizeof(bytes));
	switch (order->job) {
	case INSERT_BUILT:
		return insert_built(pkt, order);
	case INSERT:
		return emptcp_insert_option(pkt, bytes, sizeof(bytes));
	case REMOVE:
		return emptcp_remove_option(pkt, order->number & 15, order->unsafe);
	case REWRITE:
		return emptcp_rewrite(pkt, order->number, bytes, 2);
	case REWRITE_ODD:
		return emptcp_rewrite_any(pkt, order->number, bytes, 5, order->unsafe);
	case REWRITE_OPTION:
		return emptcp_rewrite_option(pkt, order->number & 15, order->len, bytes, 1, order->unsafe);
	case CAP:
		return emptcp_cap_window(pkt, emptcp_tcp(pkt), order->number);
	case MARK:
		return emptcp_mark_ce(pkt) == EMPTCP_ECN_MARKED;
	case SKIP:
		return emptcp_skip(pkt, order->number) != EMPTCP_NEXT;
	case EVENT:
		return emptcp_event(pkt, order->number, bytes, sizeof(bytes));
	case GOTO:
		return emptcp_goto(pkt, order->number) == EMPTCP_GOTO;
	case REMOVE_KIND:
		return remove_kind(pkt, order);
	case HOP:
		return emptcp_take_hop(pkt);
	case SOURCE:
		return emptcp_set_source(pkt, bytes);
	case SKB_MARK:
		return emptcp_mark(pkt, order->number, order->number);
	case LEAVE:
	case NEIGH:
		return leave(pkt, order);
	}
	return false;
}

static __always_inline int fuzz(void *ctx, int backend)
{
	__u32 first = 0;
	const struct order *order_ = bpf_map_lookup_elem(&order, &first);
	struct answer *answer_ = bpf_map_lookup_elem(&answer, &first);
	struct emptcp_pkt *parsed = emptcp_parsed();
	struct emptcp_flow flow = {};
	struct emptcp_usual usual;
	const struct emptcp_handle pkt = {
		.ctx = ctx, .parsed = parsed, .flow = &flow, .backend = backend, .name = "fuzz" EMPTCP_ZEROS};

	if (!order_ || !answer_ || !parsed)
		return -1;
	flow.wscale[0] = order_->scale[0];
	flow.wscale[1] = order_->scale[1];
	flow.local_token[0] = order_->token[0];
	flow.local_token[1] = order_->token[1];
	answer_->done = 0;
	answer_->pointers = emptcp_glance(ctx, &order_->parse, &usual, backend) ? HAS_GLANCE : 0;
	answer_->parsed = emptcp_parse(ctx, parsed, &order_->parse, backend);
	__builtin_memcpy(&answer_->before, parsed, sizeof(*parsed));
	if (answer_->parsed == EMPTCP_PARSE_TCP) {
		answer_->pointers |= read_headers(&pkt, order_, answer_);
		answer_->pointers |= read_options(&pkt, answer_);
		answer_->pointers |= read_rest(&pkt, answer_);
		read_ends(&pkt, order_, answer_);
		read_kind(&pkt, order_, answer_);
		read_devices(&pkt, answer_);
		answer_->done = act(&pkt, order_);
		emptcp_put_header(&pkt);
		emptcp_take_header(&pkt);
		answer_->chain = parsed->chain;
	}
	__builtin_memcpy(&answer_->after, parsed, sizeof(*parsed));
	return backend == EMPTCP_XDP ? XDP_PASS : TC_ACT_OK;
}

SEC("xdp")
int fuzz_xdp(struct xdp_md *ctx)
{
	return fuzz(ctx, EMPTCP_XDP);
}

SEC("tc")
int fuzz_tc(struct __sk_buff *ctx)
{
	return fuzz(ctx, EMPTCP_TC);
}

/* As above, with a tag that no byte of the frame shows. */
SEC("tc")
int fuzz_tagged_tc(struct __sk_buff *ctx)
{
	__u32 first = 0;
	const struct order *order_ = bpf_map_lookup_elem(&order, &first);

	if (!order_ || bpf_skb_vlan_push(ctx, bpf_htons(ETH_P_8021Q), order_->tag))
		return -1;
	return fuzz(ctx, EMPTCP_TC);
}
