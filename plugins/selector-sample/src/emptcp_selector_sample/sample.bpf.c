/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include <emptcp/selector.h>

#define ALL   1000000 /* parts per million */
#define MIXER 0x9e3779b97f4a7c15ULL

struct sample {
	__u64 stage_id; /* by core */
	__u32 every;
	__u32 share; /* parts per million */
	__u32 seed;
	__u32 reserved;
};

/*
 * Packets of each stage since the last one that matched. Per CPU: an atomic counter that tells its value
 * needs Linux 5.12, and would go from CPU to CPU with each packet.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u32);
} sample_counts SEC(".maps");

static __always_inline __u64 mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * MIXER;
	return hash ^ hash >> 32;
}

/* As README.md tells it in Python. */
static __always_inline __u32 hash_of(const struct emptcp_key *key, __u64 hash)
{
	const __be32 *word = key->addr[0];

#pragma unroll
	for (int i = 0; i < 8; i += 2)
		hash = mix(hash, (__u64)bpf_ntohl(word[i]) << 32 | bpf_ntohl(word[i + 1]));
	hash = mix(hash, (__u32)bpf_ntohs(key->port[0]) << 16 | bpf_ntohs(key->port[1]));
	return hash * MIXER >> 32;
}

static __always_inline bool is_due(const struct sample *param)
{
	__u64 stage = param->stage_id;
	const __u32 none = 0;
	__u32 *count = bpf_map_lookup_elem(&sample_counts, &stage);

	if (!count) {
		bpf_map_update_elem(&sample_counts, &stage, &none, BPF_NOEXIST);
		count = bpf_map_lookup_elem(&sample_counts, &stage);
		if (!count)
			return false;
	}
	*count += 1;
	if (*count < param->every)
		return false;
	*count = 0;
	return true;
}

EMPTCP_SELECTOR(sample, pkt, struct sample, param)
{
	if (param->share < ALL && (__u64)hash_of(&pkt->parsed->key, param->seed) * ALL >> 32 >= param->share)
		return false;
	return param->every <= 1 || is_due(param);
}
