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
	/* What controllers go by; emptcp.mptcp.measured unpacks it. */
	__u64 pacing_rate; /* bytes per second */
	__u64 bytes_sent;  /* what is sent again included */
	__u64 bytes_acked;
	__u64 bytes_received;
	__u64 queued;	     /* bytes that the connection holds and has given to no subflow */
	__u64 outstanding;   /* bytes of the connection that are given to subflows and not acknowledged */
	__u32 min_rtt;	     /* microseconds, as the next one */
	__u32 rtt_deviation; /* times 4 */
	__u32 cwnd;	     /* packets, of mss bytes */
	__u32 mss;
	__u32 retransmissions; /* packets */
	__u32 rate_delivered;  /* packets, */
	__u32 rate_interval;   /* within so many microseconds */
	__u32 reserved2;
};

enum subflow_flag {
	SUBFLOW_BACKUP = 1 << 0,
	SUBFLOW_REQUEST_BACKUP = 1 << 1,
	SUBFLOW_TIMESTAMPS = 1 << 2,
	SUBFLOW_JOINING = 1 << 3,
	SUBFLOW_SNDBUF_LIMITED = 1 << 4, /* of the connection: it takes no more from the application now */
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

static __always_inline void progress(struct emptcp_subflow_record *record, const struct tcp_sock *tcp)
{
	record->pacing_rate = ((const struct sock *)tcp)->sk_pacing_rate;
	record->bytes_sent = tcp->bytes_sent;
	record->bytes_acked = tcp->bytes_acked;
	record->bytes_received = tcp->bytes_received;
	record->min_rtt = tcp->rtt_min.s[0].v;
	record->rtt_deviation = tcp->mdev_us;
	record->cwnd = tcp->snd_cwnd;
	record->mss = tcp->mss_cache;
	record->retransmissions = tcp->total_retrans;
	record->rate_delivered = tcp->rate_delivered;
	record->rate_interval = tcp->rate_interval_us;
}

static __always_inline void devices(struct emptcp_subflow_record *record, const struct tcp_sock *tcp)
{
	const struct sock *sk = (const void *)tcp;

	/* Since 5.17; before, the caller asks the routing table. */
	if (__builtin_preserve_field_info(sk->sk_rx_dst_ifindex, EMPTCP_FIELD_EXISTS))
		record->device = sk->sk_rx_dst_ifindex;
}

static __always_inline void queue(struct emptcp_subflow_record *record, const struct mptcp_sock *connection)
{
	__u64 written, next, acked;

	/* Since 5.11. */
	if (!__builtin_preserve_field_info(connection->snd_nxt, EMPTCP_FIELD_EXISTS))
		return;
	written = EMPTCP_READ_FIELD(connection, write_seq);
	next = EMPTCP_READ_FIELD(connection, snd_nxt);
	record->queued = written - next;
	if (!__builtin_preserve_field_info(connection->snd_una, EMPTCP_FIELD_EXISTS))
		return;
	acked = EMPTCP_READ_FIELD(connection, snd_una);
	record->outstanding = next - acked;
}

static __always_inline bool is_sndbuf_limited(const struct mptcp_sock *connection)
{
	const struct sock *sk = (const void *)connection;
	const struct socket *socket = NULL;
	unsigned long flags = 0;

	bpf_probe_read_kernel(&socket, sizeof(socket), &sk->sk_socket);
	if (socket) /* NULL when the application has closed it */
		bpf_probe_read_kernel(&flags, sizeof(flags), &socket->flags);
	return flags & 1UL << SOCK_NOSPACE;
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
		queue(record, connection);
		if (is_sndbuf_limited(connection))
			record->flags |= SUBFLOW_SNDBUF_LIMITED;
	}
	if (EMPTCP_READ_FIELD(subflow, backup))
		record->flags |= SUBFLOW_BACKUP;
	if (EMPTCP_READ_FIELD(subflow, request_bkup))
		record->flags |= SUBFLOW_REQUEST_BACKUP;
	if (EMPTCP_READ_FIELD(subflow, mp_join) && !EMPTCP_READ_FIELD(subflow, fully_established))
		record->flags |= SUBFLOW_JOINING;
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
	progress(&record, tcp);
	devices(&record, tcp);
	mptcp(&record, subflow);
	bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
