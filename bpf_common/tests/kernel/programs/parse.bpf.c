/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The parser as ordinary programs: parse, leave what was found in a map, answer what the parser answered.
 * `thorough` programs take nothing for usual. */
#include <emptcp/flow.h>
#include <emptcp/parse.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct emptcp_parse_config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct emptcp_pkt);
} found SEC(".maps");

static __always_inline int parse(void *ctx, bool thorough, int backend)
{
	__u32 first = 0;
	const struct emptcp_parse_config *how = bpf_map_lookup_elem(&config, &first);
	struct emptcp_pkt *parsed = emptcp_parsed(), *copy = bpf_map_lookup_elem(&found, &first);
	int result;

	if (!how || !parsed || !copy)
		return -1;
	result = thorough ? emptcp_parse_unusual(ctx, parsed, how, backend)
			  : emptcp_parse(ctx, parsed, how, backend);
	__builtin_memcpy(copy, parsed, sizeof(*copy));
	return result;
}

SEC("xdp")
int parse_xdp(struct xdp_md *ctx)
{
	return parse(ctx, false, EMPTCP_XDP);
}

SEC("tc")
int parse_tc(struct __sk_buff *ctx)
{
	return parse(ctx, false, EMPTCP_TC);
}

SEC("xdp")
int thorough_xdp(struct xdp_md *ctx)
{
	return parse(ctx, true, EMPTCP_XDP);
}

SEC("tc")
int thorough_tc(struct __sk_buff *ctx)
{
	return parse(ctx, true, EMPTCP_TC);
}

/* Without the copy: for the clock, and for counting what the verifier does. */
static __always_inline int only_parse(void *ctx, int backend)
{
	__u32 first = 0;
	const struct emptcp_parse_config *how = bpf_map_lookup_elem(&config, &first);
	struct emptcp_pkt *parsed = emptcp_parsed();

	if (!how || !parsed)
		return -1;
	return emptcp_parse(ctx, parsed, how, backend);
}

SEC("xdp")
int only_xdp(struct xdp_md *ctx)
{
	return only_parse(ctx, EMPTCP_XDP);
}

SEC("tc")
int only_tc(struct __sk_buff *ctx)
{
	return only_parse(ctx, EMPTCP_TC);
}

static __always_inline int flow(void *ctx, int backend)
{
	struct emptcp_pkt *parsed = emptcp_parsed();

	if (!parsed || only_parse(ctx, backend) != EMPTCP_PARSE_TCP)
		return 0;
	return emptcp_find_flow(parsed) != NULL;
}

SEC("xdp")
int flow_xdp(struct xdp_md *ctx)
{
	return flow(ctx, EMPTCP_XDP);
}

SEC("tc")
int flow_tc(struct __sk_buff *ctx)
{
	return flow(ctx, EMPTCP_TC);
}

/* What there is without us: the cost of the test run itself, and of two look-ups. */
SEC("xdp")
int empty_xdp(struct xdp_md *ctx __unused)
{
	return XDP_PASS;
}

SEC("tc")
int empty_tc(struct __sk_buff *ctx __unused)
{
	return TC_ACT_OK;
}

SEC("xdp")
int lookups_xdp(struct xdp_md *ctx __unused)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&config, &first) && emptcp_parsed();
}
