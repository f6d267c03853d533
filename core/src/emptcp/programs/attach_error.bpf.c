/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The driver's own sentence when it refuses an XDP link: bpf_link_create() returns a number only, the text
 * goes to the tracepoint xdp:bpf_xdp_link_attach_failed (kernel 6.5). One value per thread that was refused.
 */
#include <emptcp/uapi.h>
#include <emptcp/bpf.h>

#define SENTENCE_BYTES 160

EMPTCP_HELPER(__u64, bpf_get_current_pid_tgid, 14, void);

struct sentence {
	char text[SENTENCE_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 64);
	__type(key, __u32); /* thread */
	__type(value, struct sentence);
} sentences SEC(".maps");

/* A raw tracepoint's context is the array of its arguments. */
struct arguments {
	const char *message;
};

SEC("raw_tp/bpf_xdp_link_attach_failed")
int attach_error(struct arguments *ctx)
{
	__u32 thread = bpf_get_current_pid_tgid();
	struct sentence sentence = {};

	bpf_probe_read_kernel_str(sentence.text, sizeof(sentence.text), ctx->message);
	bpf_map_update_elem(&sentences, &thread, &sentence, BPF_ANY);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
