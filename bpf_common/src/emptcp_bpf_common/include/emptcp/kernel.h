/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel's own structures, only with the members that are read. libbpf relocates each access to the
 * running kernel (CO-RE), so bit-fields and sizes that moved between releases stay right.
 */
#ifndef EMPTCP_KERNEL_H
#define EMPTCP_KERNEL_H

#include <emptcp/bpf.h>

#define AF_INET	   2
#define AF_INET6   10
#define TCP_LISTEN 10

#define EMPTCP_KERNEL __attribute__((preserve_access_index))

struct seq_file;

struct hlist_node {
	struct hlist_node *next;
} EMPTCP_KERNEL;

struct hlist_head {
	struct hlist_node *first;
} EMPTCP_KERNEL;

struct net {
	struct hlist_head *dev_index_head; /* by the low byte of the ifindex */
} EMPTCP_KERNEL;

typedef struct {
	struct net *net;
} possible_net_t;

struct net_device {
	unsigned long state; /* of enum netdev_state_t: bit 0 started, bit 2 no carrier */
	unsigned int mtu;
	int ifindex;
	unsigned short type;
	const unsigned char *dev_addr;
	struct hlist_node index_hlist;
	possible_net_t nd_net;
} EMPTCP_KERNEL;

struct sk_buff {
	struct net_device *dev;
} EMPTCP_KERNEL;

struct bpf_iter_meta {
	struct seq_file *seq;
} EMPTCP_KERNEL;

struct in6_addr {
	__u8 bytes[16];
};

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	int skc_bound_dev_if;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
} EMPTCP_KERNEL;

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
} EMPTCP_KERNEL;

#define SOCK_NOSPACE 2 /* bit of flags: a writer was told that there is no room, and there was none since */

struct socket {
	unsigned long flags;
} EMPTCP_KERNEL;

struct sock {
	struct socket *sk_socket;
	unsigned long sk_pacing_rate;
	unsigned long sk_max_pacing_rate;
	int sk_rx_dst_ifindex;
} EMPTCP_KERNEL;

struct inet_connection_sock {
	void *icsk_ulp_data;
} EMPTCP_KERNEL;

struct tcp_options_received {
	__u16 tstamp_ok : 1;
	__u16 wscale_ok : 1;
	__u16 snd_wscale : 4;
	__u16 rcv_wscale : 4;
} EMPTCP_KERNEL;

struct minmax_sample {
	__u32 t;
	__u32 v;
} EMPTCP_KERNEL;

struct minmax {
	struct minmax_sample s[3];
} EMPTCP_KERNEL;

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 snd_una;
	__u32 snd_nxt;
	__u32 snd_wnd;
	__u32 write_seq;
	__u32 rcv_nxt;
	__u32 rcv_wup;
	__u32 rcv_wnd;
	__u32 srtt_us;
	__u32 notsent_lowat;
	struct minmax rtt_min;
	struct tcp_options_received rx_opt;
	__u64 bytes_sent;
	__u64 bytes_acked;
	__u64 bytes_received;
	__u32 mdev_us;
	__u32 mss_cache;
	__u32 snd_cwnd;
	__u32 total_retrans;
	__u32 rate_delivered;
	__u32 rate_interval_us;
	_Bool is_mptcp;
} EMPTCP_KERNEL;

struct mptcp_sock {
	__u64 local_key;
	__u64 remote_key;
	__u64 write_seq;
	__u64 snd_nxt;
	__u64 snd_una; /* an atomic64_t before 5.12 */
} EMPTCP_KERNEL;

struct mptcp_subflow_context {
	__u32 token;
	__u32 request_bkup : 1;
	__u32 backup : 1;
	__u32 mp_join : 1;
	__u32 fully_established : 1;
	__s16 local_id;
	__u8 remote_id;
	const struct mptcp_sock *conn; /* a struct sock *, which a mptcp_sock begins with */
} EMPTCP_KERNEL;

/* __builtin_preserve_field_info() */
enum emptcp_field_info {
	EMPTCP_FIELD_BYTE_OFFSET = 0,
	EMPTCP_FIELD_BYTE_SIZE = 1,
	EMPTCP_FIELD_EXISTS = 2,
	EMPTCP_FIELD_SIGNED = 3,
	EMPTCP_FIELD_SHIFT_LEFT = 4,
	EMPTCP_FIELD_SHIFT_RIGHT = 5,
};

/* Which byte holds a bit-field, how wide it is and where its bits lie all differ between kernels. */
#define EMPTCP_READ_FIELD(from, field)                                                                    \
	({                                                                                                \
		__u64 value = 0;                                                                          \
		bpf_probe_read_kernel(                                                                    \
			&value, __builtin_preserve_field_info((from)->field, EMPTCP_FIELD_BYTE_SIZE),     \
			(const void *)(from) +                                                            \
				__builtin_preserve_field_info((from)->field, EMPTCP_FIELD_BYTE_OFFSET));  \
		value <<= __builtin_preserve_field_info((from)->field, EMPTCP_FIELD_SHIFT_LEFT);          \
		if (__builtin_preserve_field_info((from)->field, EMPTCP_FIELD_SIGNED))                    \
			value = (__s64)value >>                                                           \
				__builtin_preserve_field_info((from)->field, EMPTCP_FIELD_SHIFT_RIGHT);   \
		else                                                                                      \
			value >>= __builtin_preserve_field_info((from)->field, EMPTCP_FIELD_SHIFT_RIGHT); \
		value;                                                                                    \
	})

#endif
