/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A socket companion acts on the sockets of the subflows that an actor's policies select, where the host has
 * them. It never asks a policy: the actor leaves what it wants in the subflow's state, and the companion
 * brings the socket there. Core runs it when a connection is established and once per round trip (sock_ops),
 * and over all sockets that there are after each change and every second of `emptcp run` (bpf_iter/tcp).
 *
 *	EMPTCP_SOCKET_COMPANION(pace, sock, struct my_state, state)
 *	{
 *		if (state->wanted && state->wanted != state->set && emptcp_pace(sock, state->wanted))
 *			state->set = state->wanted;
 *	}
 *
 * The manifest names it as `[[actor.companion]] hook = "socket" fragment = "pace"`.
 */
#ifndef EMPTCP_SOCKET_H
#define EMPTCP_SOCKET_H

#include <emptcp/flow.h>
#include <emptcp/fragment.h>
#include <emptcp/kernel.h>

#define EMPTCP_SOL_SOCKET	  1
#define EMPTCP_SO_MAX_PACING_RATE 47
#define EMPTCP_SOL_TCP		  6
#define EMPTCP_TCP_NOTSENT_LOWAT  25
/* What SO_MAX_PACING_RATE is when nobody set one. */
#define EMPTCP_UNPACED (~0U)

/* Written by core before the object is loaded: whose sockets, and where the plugin's state is in an entry. */
struct emptcp_socket_place {
	__u64 netns; /* cookie */
	__u32 slot;
	__u32 reserved;
};

static const volatile struct emptcp_socket_place emptcp_socket_place SEC(".rodata.emptcp") = {};

/* The kernel lets only programs under its own licence look at its structures. */
static const char emptcp_license[] SEC("license") = "Dual BSD/GPL";

/* A socket, as the body of a companion gets it. */
struct emptcp_socket {
	void *ctx;		  /* what bpf_setsockopt() takes */
	struct emptcp_flow *flow; /* the head of the subflow's entry */
	__u32 direction;	  /* of what this socket sends, as emptcp_pkt.direction */
	__u32 rtt_min;		  /* microseconds, over the last minutes; ~0: not measured yet */
	__u32 pacing;		  /* SO_MAX_PACING_RATE in bytes per second when this run began */
	__u32 queued;		  /* bytes that it was given and the peer has not acknowledged */
	__u32 unsent;		  /* TCP_NOTSENT_LOWAT in bytes when this run began, 0: nobody set one */
	__u32 again;		  /* emptcp_again() was called */
};

/* A key's address as two numbers that compare as its bytes do. */
struct emptcp_socket_end {
	__u64 high, low;
	__u32 port;
};

static __always_inline struct emptcp_socket_end emptcp_socket_end(const __be32 *address, __u32 port)
{
	return (struct emptcp_socket_end){
		.high = (__u64)bpf_ntohl(address[0]) << 32 | bpf_ntohl(address[1]),
		.low = (__u64)bpf_ntohl(address[2]) << 32 | bpf_ntohl(address[3]),
		.port = port,
	};
}

static __always_inline bool emptcp_socket_above(const struct emptcp_socket_end *one,
						const struct emptcp_socket_end *other)
{
	if (one->high != other->high)
		return one->high > other->high;
	if (one->low != other->low)
		return one->low > other->low;
	return one->port > other->port;
}

static __always_inline void emptcp_socket_put(struct emptcp_key *key, __u32 end,
					      const struct emptcp_socket_end *from)
{
	key->addr[end][0] = bpf_htonl(from->high >> 32);
	key->addr[end][1] = bpf_htonl((__u32)from->high);
	key->addr[end][2] = bpf_htonl(from->low >> 32);
	key->addr[end][3] = bpf_htonl((__u32)from->low);
	key->port[end] = bpf_htons(from->port);
}

/* The entry of a socket's subflow, NULL: no packet of it was seen by a program that keeps flows. */
static __always_inline struct emptcp_flow_entry *emptcp_socket_flow(const __be32 *local, __u32 local_port,
								    const __be32 *remote, __u32 remote_port,
								    struct emptcp_socket *sock)
{
	struct emptcp_socket_end here = emptcp_socket_end(local, local_port);
	struct emptcp_socket_end there = emptcp_socket_end(remote, remote_port);
	struct emptcp_flow_entry *entry;
	struct emptcp_key key;

	sock->direction = emptcp_socket_above(&here, &there);
	if (sock->direction) {
		emptcp_socket_put(&key, 0, &there);
		emptcp_socket_put(&key, 1, &here);
	} else {
		emptcp_socket_put(&key, 0, &here);
		emptcp_socket_put(&key, 1, &there);
	}
	entry = bpf_map_lookup_elem(&emptcp_flows, &key);
	if (!entry || !entry->head.known)
		return NULL;
	sock->flow = &entry->head;
	return entry;
}

static __always_inline void emptcp_socket_queue(const struct tcp_sock *tcp, struct emptcp_socket *sock)
{
	sock->queued = tcp->write_seq - tcp->snd_una;
	sock->unsent = tcp->notsent_lowat;
}

/* sock_ops: a socket of our namespace was established, or another round trip is over. */
static __always_inline struct emptcp_flow_entry *emptcp_socket_event(struct bpf_sock_ops *ops,
								     struct emptcp_socket *sock)
{
	/* All of them, and before any branch: the verifier wants the context's fields at fixed places. */
	__be32 local4 = READ_ONCE(ops->local_ip4), remote4 = READ_ONCE(ops->remote_ip4);
	__be32 local[4] = {READ_ONCE(ops->local_ip6[0]), READ_ONCE(ops->local_ip6[1]),
			   READ_ONCE(ops->local_ip6[2]), READ_ONCE(ops->local_ip6[3])};
	__be32 remote[4] = {READ_ONCE(ops->remote_ip6[0]), READ_ONCE(ops->remote_ip6[1]),
			    READ_ONCE(ops->remote_ip6[2]), READ_ONCE(ops->remote_ip6[3])};
	bool established = ops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB ||
			   ops->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB;
	struct emptcp_flow_entry *entry;
	struct bpf_sock *sk = ops->sk;
	struct tcp_sock *tcp;

	if (!established && ops->op != BPF_SOCK_OPS_RTT_CB)
		return NULL;
	if (bpf_get_netns_cookie(ops) != emptcp_socket_place.netns)
		return NULL;
	if (ops->family == AF_INET) {
		local[0] = local[1] = remote[0] = remote[1] = 0;
		local[2] = remote[2] = bpf_htonl(0xffff);
		local[3] = local4;
		remote[3] = remote4;
	}
	entry = emptcp_socket_flow(local, ops->local_port, remote, bpf_ntohl(ops->remote_port), sock);
	if (!entry)
		return NULL;
	if (established)
		bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_RTT_CB_FLAG);
	sock->ctx = ops;
	sock->rtt_min = ops->rtt_min;
	tcp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;
	if (tcp)
		emptcp_socket_queue(tcp, sock);
	/* Before 6.1 a program can't ask; nobody but us paces a subflow's socket before it is established. */
	if (bpf_getsockopt(ops, EMPTCP_SOL_SOCKET, EMPTCP_SO_MAX_PACING_RATE, &sock->pacing, sizeof(__u32)))
		sock->pacing = EMPTCP_UNPACED;
	return entry;
}

/* The window scales of a connection whose SYNs nobody saw. The peer's windows are scaled by what it said. */
static __always_inline void emptcp_socket_scales(const struct tcp_sock *tcp, const struct emptcp_socket *sock)
{
	__u8 ours = EMPTCP_READ_FIELD(tcp, rx_opt.rcv_wscale) + 1;
	__u8 theirs = EMPTCP_READ_FIELD(tcp, rx_opt.snd_wscale) + 1;
	struct emptcp_flow *flow = sock->flow;

	if (!flow->wscale[0])
		flow->wscale[0] = sock->direction ? theirs : ours;
	if (!flow->wscale[1])
		flow->wscale[1] = sock->direction ? ours : theirs;
}

/* bpf_iter/tcp: a socket that is there. */
static __always_inline struct emptcp_flow_entry *emptcp_socket_found(struct bpf_iter__tcp *ctx,
								     struct emptcp_socket *sock)
{
	__be32 local[4] = {0, 0, bpf_htonl(0xffff), 0}, remote[4] = {0, 0, bpf_htonl(0xffff), 0};
	struct sock_common *sk = ctx->sk_common;
	struct emptcp_flow_entry *entry;
	struct tcp_sock *tcp;
	unsigned long pacing;

	if (!sk || sk->skc_state == TCP_LISTEN)
		return NULL;
	tcp = bpf_skc_to_tcp_sock(sk); /* NULL for request and time-wait sockets */
	if (!tcp || !tcp->is_mptcp)
		return NULL;
	if (sk->skc_family == AF_INET) {
		local[3] = sk->skc_rcv_saddr;
		remote[3] = sk->skc_daddr;
	} else {
		bpf_probe_read_kernel(local, sizeof(local), &sk->skc_v6_rcv_saddr);
		bpf_probe_read_kernel(remote, sizeof(remote), &sk->skc_v6_daddr);
	}
	pacing = ((const struct sock *)tcp)->sk_max_pacing_rate;
	sock->pacing = pacing < EMPTCP_UNPACED ? pacing : EMPTCP_UNPACED;
	sock->ctx = tcp;
	sock->rtt_min = tcp->rtt_min.s[0].v;
	emptcp_socket_queue(tcp, sock);
	entry = emptcp_socket_flow(local, sk->skc_num, remote, bpf_ntohs(sk->skc_dport), sock);
	if (entry)
		emptcp_socket_scales(tcp, sock);
	return entry;
}

/* Let the socket send at most so many bytes per second, EMPTCP_UNPACED: as fast as it may. False: refused. */
EMPTCP_PUBLIC bool emptcp_pace(const struct emptcp_socket *sock, __u32 rate)
{
	return !bpf_setsockopt(sock->ctx, EMPTCP_SOL_SOCKET, EMPTCP_SO_MAX_PACING_RATE, &rate, sizeof(rate));
}

/*
 * Let the socket take at most so many bytes that it can't send yet, 0: as many as it wants. MPTCP gives the
 * rest to other subflows. False: refused, as kernels before 5.18 do.
 */
EMPTCP_PUBLIC bool emptcp_keep_unsent(const struct emptcp_socket *sock, __u32 bytes)
{
	return !bpf_setsockopt(sock->ctx, EMPTCP_SOL_TCP, EMPTCP_TCP_NOTSENT_LOWAT, &bytes, sizeof(bytes));
}

/* Ask to be run again soon: what was wanted has to wait. A command does so for up to 1.5 s before it returns.
 */
EMPTCP_PUBLIC void emptcp_again(struct emptcp_socket *sock)
{
	sock->again = 1;
}

/* The body of a socket companion: answers nothing. For other settings there is bpf_setsockopt(sock->ctx, ..).
 */
#define EMPTCP_SOCKET_COMPANION(stage, sock, STATE_T, state)                                        \
	static __always_inline void stage##__body(struct emptcp_socket *sock, STATE_T *state);      \
	static __always_inline void stage##__run(struct emptcp_socket *found,                       \
						 struct emptcp_flow_entry *entry)                   \
	{                                                                                           \
		if (emptcp_socket_place.slot <= sizeof(entry->slots) - sizeof(STATE_T))             \
			stage##__body(found, (STATE_T *)(entry->slots + emptcp_socket_place.slot)); \
	}                                                                                           \
	SEC("sockops") int stage##__ops(struct bpf_sock_ops *ctx)                                   \
	{                                                                                           \
		struct emptcp_socket found = {};                                                    \
		struct emptcp_flow_entry *entry = emptcp_socket_event(ctx, &found);                 \
                                                                                                    \
		if (entry)                                                                          \
			stage##__run(&found, entry);                                                \
		return 1;                                                                           \
	}                                                                                           \
	SEC("iter/tcp") int stage##__iter(struct bpf_iter__tcp *ctx)                                \
	{                                                                                           \
		struct emptcp_socket found = {};                                                    \
		struct emptcp_flow_entry *entry = emptcp_socket_found(ctx, &found);                 \
                                                                                                    \
		if (entry)                                                                          \
			stage##__run(&found, entry);                                                \
		if (found.again)                                                                    \
			bpf_seq_write(ctx->meta->seq, &found.again, 1);                             \
		return 0;                                                                           \
	}                                                                                           \
	const struct emptcp_abi stage##__abi SEC("emptcp.abi") = {                                  \
		.record_size = sizeof(struct emptcp_abi),                                           \
		.chain_abi = EMPTCP_CHAIN_ABI,                                                      \
		.header_version = EMPTCP_HEADER_VERSION,                                            \
		.kind = EMPTCP_KIND_SOCKET,                                                         \
		.flags = 2,                                                                         \
		.name = #stage,                                                                     \
	};                                                                                          \
	static __always_inline void stage##__body(struct emptcp_socket *sock __unused,              \
						  STATE_T *state __unused)

#endif
