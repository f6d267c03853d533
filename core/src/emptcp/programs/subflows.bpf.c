/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One record per MPTCP subflow of the reader's network namespace, written by a bpf_iter/tcp program. */
#include <emptcp/bpf.h>
#include <emptcp/kernel.h>

/* What user space reads; emptcp.mptcp.sockets unpacks it in this order. */
struct emptcp_subflow_record {
	__u8 local[16]; /* the first four bytes for IPv4 */
	__u8 remote[16];
	__u16 family;
	__u16 local_port; /* host order */
	__u16 remote_port;
	__u8 state;
	__u8 flags;  /* enum subflow_flag */
	__u32 token; /* of this host: what ip mptcp monitor and ss show */
	__s32 local_id;
	__s32 remote_id;
	__u32 snd_una;
	__u32 snd_nxt;
	__u32 snd_wnd;	 /* bytes, scaled */
	__u32 write_seq; /* end of what the socket holds to send: snd_nxt gets there for sure */
	__u32 rcv_nxt;
	__u32 rcv_wup;
	__u32 rcv_wnd;	    /* bytes, scaled, counted from rcv_wup */
	__u32 srtt_us;	    /* microseconds, times 8 */
	__u32 bound_device; /* ifindex the socket is bound to, 0: none */
	__u32 device;	    /* ifindex its packets came in by, 0: unknown */
	__u8 snd_wscale;
	__u8 rcv_wscale;
	__u8 reserved[2];
	__u64 remote_key; /* of the connection's other end, the machine's order; 0: not known */
	__u64 local_key;
};

enum subflow_flag {
	SUBFLOW_BACKUP = 1 << 0,
	SUBFLOW_REQUEST_BACKUP = 1 << 1,
	SUBFLOW_TIMESTAMPS = 1 << 2,
};

static __always_inline void addresses(struct emptcp_subflow_record *record, const struct sock_common *sk)
{
	record->family = sk->skc_family;
	record->local_port = sk->skc_num;
	record->remote_port = __builtin_bswap16(sk->skc_dport);
	record->bound_device = sk->skc_bound_dev_if;
	if (sk->skc_family == AF_INET) {
		*(__be32 *)record->local = sk->skc_rcv_saddr;
		*(__be32 *)record->remote = sk->skc_daddr;
		return;
	}
	bpf_probe_read_kernel(record->local, 16, &sk->skc_v6_rcv_saddr);
	bpf_probe_read_kernel(record->remote, 16, &sk->skc_v6_daddr);
}

static __always_inline void sequence(struct emptcp_subflow_record *record, const struct tcp_sock *tcp)
{
	record->snd_una = tcp->snd_una;
	record->snd_nxt = tcp->snd_nxt;
	record->snd_wnd = tcp->snd_wnd;
	record->write_seq = tcp->write_seq;
	record->rcv_nxt = tcp->rcv_nxt;
	record->rcv_wup = tcp->rcv_wup;
	record->rcv_wnd = tcp->rcv_wnd;
	record->srtt_us = tcp->srtt_us;
	record->snd_wscale = EMPTCP_READ_FIELD(tcp, rx_opt.snd_wscale);
	record->rcv_wscale = EMPTCP_READ_FIELD(tcp, rx_opt.rcv_wscale);
	if (EMPTCP_READ_FIELD(tcp, rx_opt.tstamp_ok))
		record->flags |= SUBFLOW_TIMESTAMPS;
}

static __always_inline void devices(struct emptcp_subflow_record *record, const struct tcp_sock *tcp)
{
	const struct sock *sk = (const void *)tcp;

	/* Since 5.17; before, the caller asks the routing table. */
	if (__builtin_preserve_field_info(sk->sk_rx_dst_ifindex, EMPTCP_FIELD_EXISTS))
		record->device = sk->sk_rx_dst_ifindex;
}

static __always_inline void mptcp(struct emptcp_subflow_record *record,
				  const struct mptcp_subflow_context *subflow)
{
	const struct mptcp_sock *connection = NULL;

	bpf_probe_read_kernel(&connection, sizeof(connection), &subflow->conn);
	record->token = EMPTCP_READ_FIELD(subflow, token);
	record->local_id = EMPTCP_READ_FIELD(subflow, local_id);
	record->remote_id = EMPTCP_READ_FIELD(subflow, remote_id);
	if (connection) {
		bpf_probe_read_kernel(&record->remote_key, sizeof(__u64), &connection->remote_key);
		bpf_probe_read_kernel(&record->local_key, sizeof(__u64), &connection->local_key);
	}
	if (EMPTCP_READ_FIELD(subflow, backup))
		record->flags |= SUBFLOW_BACKUP;
	if (EMPTCP_READ_FIELD(subflow, request_bkup))
		record->flags |= SUBFLOW_REQUEST_BACKUP;
}

SEC("iter/tcp")
int emptcp_subflows(struct bpf_iter__tcp *ctx)
{
	struct sock_common *sk = ctx->sk_common;
	struct emptcp_subflow_record record = {};
	struct mptcp_subflow_context *subflow;
	struct tcp_sock *tcp;

	if (!sk || sk->skc_state == TCP_LISTEN)
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk); /* NULL for request and time-wait sockets */
	if (!tcp || !tcp->is_mptcp)
		return 0;
	subflow = tcp->inet_conn.icsk_ulp_data;
	if (!subflow)
		return 0; /* plain TCP after a fallback of the handshake */
	record.state = sk->skc_state;
	addresses(&record, sk);
	sequence(&record, tcp);
	devices(&record, tcp);
	mptcp(&record, subflow);
	bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
