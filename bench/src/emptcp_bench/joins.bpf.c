/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Sends the frame that it is run on out of a device, each time from another TCP port: for live frames. */
#include <emptcp/checksum.h>
#include <emptcp/option.h>

#define PORT_AT (sizeof(struct ethhdr) + sizeof(struct iphdr))
#define FIRST	1024
#define PORTS	64000

/* The device's ifindex, set before it is run, and how often it ran. */
struct {
	__u32 device;
	__u32 sent;
} joins;

SEC("xdp")
int joins_xdp(struct xdp_md *ctx)
{
	__u8 *tcp = emptcp_data(ctx, EMPTCP_XDP) + PORT_AT;
	__be16 *port = (void *)tcp, old, new = bpf_htons(FIRST + joins.sent % PORTS);
	__sum16 *check = (void *)(tcp + EMPTCP_TCP_CHECK);

	if (tcp + EMPTCP_TCP_HEADER > emptcp_data_end(ctx, EMPTCP_XDP))
		return XDP_ABORTED;
	joins.sent++;
	old = *port;
	*port = new;
	*check = emptcp_check_after(*check, emptcp_word_change(old, new));
	return bpf_redirect(joins.device, 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";
