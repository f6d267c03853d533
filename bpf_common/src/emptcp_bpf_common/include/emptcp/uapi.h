/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The part of the kernel's user ABI that BPF programs here need, so that nothing else has to be installed
 * and -nostdinc works: integer types, the contexts that programs get, packet headers, map types, flags.
 *
 * IP and TCP headers have const members: they are views of the packet. A store through one would, at TC,
 * make the verifier put a prologue before the whole program that copies the head of every cloned packet, so
 * the compiler refuses it; <emptcp/change.h> changes packets.
 */
#ifndef EMPTCP_UAPI_H
#define EMPTCP_UAPI_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;

/* Values in network byte order, and sums. */
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u16 __sum16;
typedef __u32 __wsum;

#ifndef NULL
#define NULL ((void *)0)
#endif

#ifndef __cplusplus
#define bool _Bool
#define true 1
#define false 0
#endif

/* A pointer that the verifier makes out of a context field: 64 bits wide on every machine. */
#define EMPTCP_CTX_POINTER(type, name) \
	union {                        \
		type name;             \
		__u64 : 64;            \
	} __attribute__((aligned(8)))

struct bpf_sock;

struct bpf_spin_lock {
	__u32 val;
};

struct bpf_flow_keys;

struct xdp_md {
	__u32 data;
	__u32 data_end;
	__u32 data_meta;
	__u32 ingress_ifindex;
	__u32 rx_queue_index;
	__u32 egress_ifindex;
};

struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol;
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
	__u32 tc_index;
	__u32 cb[5];
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
	__u32 napi_id;
	__u32 family;
	__u32 remote_ip4;
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;
	__u32 data_meta;
	EMPTCP_CTX_POINTER(struct bpf_flow_keys *, flow_keys);
	__u64 tstamp;
	__u32 wire_len;
	__u32 gso_segs;
	EMPTCP_CTX_POINTER(struct bpf_sock *, sk);
	__u32 gso_size;
	__u8 tstamp_type;
	__u64 hwtstamp;
};

struct bpf_sock_ops {
	__u32 op;
	union {
		__u32 args[4];
		__u32 reply;
		__u32 replylong[4];
	};
	__u32 family;
	__u32 remote_ip4; /* network order, as the other addresses and remote_port */
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port; /* host order */
	__u32 is_fullsock;
	__u32 snd_cwnd;
	__u32 srtt_us; /* eight times the RTT */
	__u32 bpf_sock_ops_cb_flags;
	__u32 state;
	__u32 rtt_min;
	__u32 snd_ssthresh;
	__u32 rcv_nxt;
	__u32 snd_nxt;
	__u32 snd_una;
	__u32 mss_cache;
	__u32 ecn_flags;
	__u32 rate_delivered;
	__u32 rate_interval_us;
	__u32 packets_out;
	__u32 retrans_out;
	__u32 total_retrans;
	__u32 segs_in;
	__u32 data_segs_in;
	__u32 segs_out;
	__u32 data_segs_out;
	__u32 lost_out;
	__u32 sacked_out;
	__u32 sk_txhash;
	__u64 bytes_received;
	__u64 bytes_acked;
	EMPTCP_CTX_POINTER(struct bpf_sock *, sk);
	EMPTCP_CTX_POINTER(void *, skb_data);
	EMPTCP_CTX_POINTER(void *, skb_data_end);
	__u32 skb_len;
	__u32 skb_tcp_flags;
};

enum xdp_action {
	XDP_ABORTED = 0,
	XDP_DROP = 1,
	XDP_PASS = 2,
	XDP_TX = 3,
	XDP_REDIRECT = 4,
};

enum {
	TC_ACT_UNSPEC = -1,
	TC_ACT_OK = 0,
	TC_ACT_SHOT = 2,
	TC_ACT_REDIRECT = 7,
};

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PROG_ARRAY = 3,
	BPF_MAP_TYPE_PERF_EVENT_ARRAY = 4,
	BPF_MAP_TYPE_PERCPU_HASH = 5,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_LRU_PERCPU_HASH = 10,
	BPF_MAP_TYPE_LPM_TRIE = 11,
	BPF_MAP_TYPE_DEVMAP = 14,
	BPF_MAP_TYPE_QUEUE = 22,
	BPF_MAP_TYPE_SK_STORAGE = 24,
	BPF_MAP_TYPE_RINGBUF = 27,
};

/* bpf_map_update_elem() */
enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
	BPF_EXIST = 2,
};

/* Map creation */
enum {
	BPF_F_NO_PREALLOC = 1 << 0,
	BPF_F_NO_COMMON_LRU = 1 << 1,
	BPF_F_RDONLY_PROG = 1 << 7,
	BPF_F_MMAPABLE = 1 << 10,
};

/* bpf_skb_store_bytes() */
#define BPF_F_RECOMPUTE_CSUM (1ULL << 0)
/* bpf_l4_csum_replace(): the low four bits are the size of the value, 0 for a difference of sums */
#define BPF_F_PSEUDO_HDR (1ULL << 4)
/* bpf_redirect() */
#define BPF_F_INGRESS (1ULL << 0)

/* bpf_fib_lookup(): a route out of the device in `ifindex`, not for packets that came in by it */
#define BPF_FIB_LOOKUP_OUTPUT (1U << 1)

enum {
	BPF_FIB_LKUP_RET_SUCCESS = 0,
	BPF_FIB_LKUP_RET_NO_NEIGH = 7, /* a route, and no link-layer address yet */
};

struct bpf_fib_lookup {
	__u8 family;
	__u8 l4_protocol;
	__be16 sport;
	__be16 dport;
	__u16 tot_len; /* 0: the length is not asked about */
	__u32 ifindex; /* afterwards: the device that the route goes out of */
	__u32 tos;     /* IPv6: flow information; afterwards the metric */
	__be32 src[4]; /* the first word for IPv4 */
	__be32 dst[4]; /* afterwards: the next hop */
	__be16 h_vlan_proto;
	__be16 h_vlan_TCI;
	__u8 smac[6];
	__u8 dmac[6];
};

/* bpf_redirect_neigh() */
struct bpf_redir_neigh {
	__u32 nh_family;
	__be32 nh[4]; /* the first word for IPv4 */
};

/* bpf_sock_ops.op, and what bpf_sock_ops_cb_flags_set() switches on */
enum {
	BPF_SOCK_OPS_TCP_CONNECT_CB = 3,
	BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB = 4,
	BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB = 5,
	BPF_SOCK_OPS_STATE_CB = 10,
	BPF_SOCK_OPS_RTT_CB = 12,
	BPF_SOCK_OPS_PARSE_HDR_OPT_CB = 13,
	BPF_SOCK_OPS_HDR_OPT_LEN_CB = 14,
	BPF_SOCK_OPS_WRITE_HDR_OPT_CB = 15,
};

enum {
	BPF_SOCK_OPS_STATE_CB_FLAG = 1 << 2,
	BPF_SOCK_OPS_RTT_CB_FLAG = 1 << 3,
	BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG = 1 << 6,
};

enum {
	ETH_P_IP = 0x0800,
	ETH_P_8021Q = 0x8100,
	ETH_P_IPV6 = 0x86dd,
	ETH_P_8021AD = 0x88a8,
};

enum {
	IPPROTO_HOPOPTS = 0,
	IPPROTO_TCP = 6,
	IPPROTO_UDP = 17,
	IPPROTO_ROUTING = 43,
	IPPROTO_FRAGMENT = 44,
	IPPROTO_DSTOPTS = 60,
};

struct ethhdr {
	const __u8 h_dest[6];
	const __u8 h_source[6];
	const __be16 h_proto;
} __attribute__((packed));

struct vlan_hdr {
	const __be16 h_vlan_TCI;
	const __be16 h_vlan_encapsulated_proto;
};

struct iphdr {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	const __u8 ihl : 4, version : 4;
#else
	const __u8 version : 4, ihl : 4;
#endif
	const __u8 tos;
	const __be16 tot_len;
	const __be16 id;
	const __be16 frag_off;
	const __u8 ttl;
	const __u8 protocol;
	const __sum16 check;
	const __be32 saddr;
	const __be32 daddr;
};

struct ipv6hdr {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	const __u8 priority : 4, version : 4;
#else
	const __u8 version : 4, priority : 4;
#endif
	const __u8 flow_lbl[3];
	const __be16 payload_len;
	const __u8 nexthdr;
	const __u8 hop_limit;
	const __be32 saddr[4];
	const __be32 daddr[4];
};

struct tcphdr {
	const __be16 source;
	const __be16 dest;
	const __be32 seq;
	const __be32 ack_seq;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	const __u16 res1 : 4, doff : 4, fin : 1, syn : 1, rst : 1, psh : 1, ack : 1, urg : 1, ece : 1,
		cwr : 1;
#else
	const __u16 doff : 4, res1 : 4, cwr : 1, ece : 1, urg : 1, ack : 1, psh : 1, rst : 1, syn : 1,
		fin : 1;
#endif
	const __be16 window;
	const __sum16 check;
	const __be16 urg_ptr;
};

#endif
