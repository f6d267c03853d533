/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The contract between core and every fragment: what a fragment is given, and what it may answer.
 *
 * A fragment is one selector's, actor's or companion's body, compiled once per back-end into its own
 * section. The engines call it as
 *
 *	int fragment(CTX *ctx, struct emptcp_pkt *parsed, const PARAM *param, STATE *state,
 *		     struct emptcp_flow *flow);
 *
 * with ctx a struct xdp_md or struct __sk_buff, param the stage's parameters (NULL when it has none),
 * state its plugin's slot in the flow table (never NULL when the fragment declares one) and flow the
 * head of that entry (NULL without one, and where the fragment keeps no state and its manifest does not say
 * reads = ["flow"]). A key's fragment is given the place for the key in state, and no parameters.
 *
 * Everything here is append-only: core tells the size it filled in emptcp_pkt.size.
 */
#ifndef EMPTCP_ABI_H
#define EMPTCP_ABI_H

#include <emptcp/uapi.h>

#define EMPTCP_CHAIN_ABI      1
#define EMPTCP_HEADER_VERSION 3 /* a core that knows only an older one refuses the fragment */

/* What an actor answers. A selector answers 0 (no match) or 1 (match). */
enum emptcp_verdict {
	EMPTCP_NEXT = 0,     /* the next stage of the chain */
	EMPTCP_RETURN = 1,   /* end this chain, the next policy goes on */
	EMPTCP_ACCEPT = 2,   /* no further policy; the packet passes */
	EMPTCP_DROP = 3,     /* the packet is dropped */
	EMPTCP_REDIRECT = 4, /* out of the device in emptcp_pkt.redirect; 0: as a helper was told */
	EMPTCP_GOTO = 5,     /* on in the named chain in emptcp_pkt.chain, and not back */
};

/* Where a program runs, seen from the host. */
enum emptcp_hook {
	EMPTCP_INGRESS = 0,
	EMPTCP_EGRESS = 1,
};

/* What runs it there. */
enum emptcp_backend {
	EMPTCP_XDP = 0,
	EMPTCP_TC = 1,
};

/* Why a packet was left untouched. Counted per stage; the names stand in emptcp.chain.reasons. */
enum emptcp_reason {
	EMPTCP_OK = 0,
	EMPTCP_FRAGMENT = 1,	     /* an IP fragment: the checksum covers what is not here */
	EMPTCP_TRUNCATED = 2,	     /* a header or the IP length reaches behind the packet */
	EMPTCP_BAD_HEADER = 3,	     /* IHL < 5, data offset < 5, IP length < headers */
	EMPTCP_TOO_MANY_HEADERS = 4, /* more VLAN tags or IPv6 extension headers than are walked */
	EMPTCP_ROUTING_HEADER = 5,   /* segments left: the pseudo-header has another address */
	EMPTCP_LENGTH_UNKNOWN = 6,   /* IP total length 0, jumbogram */
	EMPTCP_SIGNED = 7,	     /* TCP-MD5 or TCP-AO */
	EMPTCP_SYN_DATA = 8,	     /* SYN with data or a Fast Open cookie */
	EMPTCP_CLOSING = 9,	     /* RST, or FIN: nothing is inserted */
	EMPTCP_NO_OPTION = 10,	     /* the option to act on is not in the packet */
	EMPTCP_NO_SPACE = 11,	     /* the option space is full */
	EMPTCP_NOT_PURE_ACK = 12,    /* growing needs a packet without payload */
	EMPTCP_GSO = 13,	     /* a merged packet can only be changed in place */
	EMPTCP_NO_FLOW = 14,	     /* no entry in the flow table */
	EMPTCP_NO_VALUE = 15,	     /* a parameter's map has no entry for this key */
	EMPTCP_BAD_OPTION = 16,	     /* wrong length, malformed option block */
	EMPTCP_BAD_VERSION = 17,     /* an MPTCP version that is not known */
	EMPTCP_REFUSED = 18,	     /* a kernel helper refused the change */
	EMPTCP_UNSAFE = 19,	     /* would change a DSS without unsafe = true */
	EMPTCP_UNKNOWN_STATE = 20,   /* connection began before us: key, token or window scale not seen */
	EMPTCP_NO_LINK = 21,  /* the device to leave by is gone, down or without a route, or came in by it */
	EMPTCP_TOO_LONG = 22, /* longer than the MTU of the device to leave by */
	EMPTCP_REASONS = 24,
};

/* emptcp_pkt.flags */
enum emptcp_pkt_flag {
	EMPTCP_PKT_MPTCP = 1 << 0,    /* at least one valid MPTCP option */
	EMPTCP_PKT_PURE_ACK = 1 << 1, /* ACK, no payload, no SYN, FIN, RST */
	EMPTCP_PKT_GSO = 1 << 3,      /* skb with gso_size: more than one wire packet */
	EMPTCP_PKT_VLAN = 1 << 4,     /* a tag with a VLAN ID, in the data or in the skb */
	EMPTCP_PKT_MPTCP_V0 = 1 << 5, /* a version seen in this packet says 0 */
};

#define EMPTCP_SUBTYPES 16

/* Both endpoints of a TCP flow, lower first (addresses, then ports, as bytes on the wire), so that
 * one key serves both directions. IPv4 stands as ::ffff:a.b.c.d. */
struct emptcp_key {
	__be32 addr[2][4];
	__be16 port[2];
};

#define EMPTCP_SCRATCH_SIZE 16

#define EMPTCP_KEY_SIZE	      64  /* the largest key of a set or map */
#define EMPTCP_PARAMETER_SIZE 256 /* the largest struct of parameters */

/* What the parser found. A value in a per-CPU array: lives as long as the packet is in the program. */
struct emptcp_pkt {
	__u32 size;   /* of this struct as core knows it */
	__u8 hook;    /* enum emptcp_hook */
	__u8 backend; /* enum emptcp_backend */
	__u8 family;  /* 4 or 6 */
	__u8 flags;   /* enum emptcp_pkt_flag */
	__u16 l3;     /* offsets from the first byte of the packet */
	__u16 l4;
	__u16 payload; /* = end of the TCP options */
	__u16 ip_end;  /* end of the IP packet; what follows is link padding. 0: beyond 65535 */
	__u32 payload_len;
	__u8 tcp_flags;	  /* byte 13 of the TCP header */
	__u8 direction;	  /* 0: sent by key.addr[0] */
	__u8 options_len; /* bytes of TCP options that were walked, up to EOL or the first broken one */
	__u8 no_modify;	  /* enum emptcp_reason: why nothing may change this packet; 0: may be changed */
	__u8 reason;	  /* enum emptcp_reason: set by the running stage when it could not act */
	__u8 timestamps;  /* offset of the option from l4, 0: absent */
	__u8 sack;
	__u8 window_scale;
	__u16 subtypes;		   /* bit n: MPTCP subtype n is there and valid */
	__u16 repeated;		   /* bit n: more than once */
	__u8 at[EMPTCP_SUBTYPES];  /* offset from l4 of the last valid one of each subtype, 0: absent */
	__u8 len[EMPTCP_SUBTYPES]; /* its length */
	__u32 redirect;		   /* ifindex for EMPTCP_REDIRECT; 0: a helper was told where to */
	struct emptcp_key key;
	__u8 scratch[EMPTCP_SCRATCH_SIZE]; /* free for the stages of one packet; zero at entry */
	/* Below: what the headers' own functions work with, not for plugins. */
	__u8 block[64]; /* the TCP options as they are in the packet now */
	__u32 cursor;
	__u32 argument;
	__u8 option[40];  /* the option to insert, or bytes to rewrite */
	__u8 built[64];	  /* the option block as it is to be */
	__u64 nops;	  /* bit n: byte n of the block is a NOP. This and the rest: only during an edit */
	__u64 heads;	  /* bit n: an option begins there */
	__u8 places[32];  /* where options begin, in order */
	__u32 places_len; /* how many */
	__u32 built_len;  /* bytes of `built`: a multiple of 4 */
	__u32 entry;	  /* engine tail: where in the chain context the packet is */
	__u32 length;	  /* bytes of the IP packet that came in, for the counters; 0: it is left alone */
	__u64 found_key[EMPTCP_KEY_SIZE / 8];	     /* the packet's key, as a key's fragment wrote it */
	__u64 parameters[EMPTCP_PARAMETER_SIZE / 8]; /* a stage's, with values from maps in their places */
	__u32 chain; /* for EMPTCP_GOTO: what a parameter of type chain holds */
	__u32 kept;  /* engine tail: what stood in skb->cb; at XDP: whether the context is in metadata */
	__u32 netns; /* low half of the cookie of the network namespace that the packet passes */
	__u32 sum;   /* what the sum of TCP's checksum has grown by: core brings the field along at the end */
	struct tcphdr tcp; /* without its options, as the stages leave it; the packet's follows at the end */
	__u8 written;	   /* 1: a stage has changed the flags there, or the window */
	__u8 written_rest; /* 1: or anything else */
	__u8 reserved[2];
};

/* Head of an entry of the flow table; the plugins' slots follow. A SYN without ACK zeroes the entry. */
struct emptcp_flow {
	__u64 since;	   /* bpf_ktime_get_ns() of the first packet seen */
	__u8 known;	   /* bit 0: an MPTCP option was seen on this flow */
	__u8 version;	   /* MPTCP version + 1; 0: not seen */
	__u8 opener;	   /* direction of the SYN + 1; 0: not seen */
	__u8 inconsistent; /* 1: a key was told twice and differently; what depends on keys must not act */
	__u8 wscale[2];	   /* per direction of the SYN that told it: scale + 1; 0: not seen */
	__u8 reserved1[2];
	__u32 token[2]; /* per direction: token in an MP_JOIN SYN sent this way (network order), 0: none */
	__u64 key[2];	/* per direction: the sending end's key, as on the wire; 0: not seen. Secrets */
	/* Per end: the token by which it knows the connection (network order), 0: not known (yet). Only where
	 * some stage's manifest says reads = ["connection"]. */
	__u32 local_token[2];
	__u8 told; /* 1: user space was told that the keys are there */
	__u8 reserved2[15];
};

/* What a fragment's body gets: a compile-time handle, gone after inlining. */
struct emptcp_handle {
	void *ctx;
	struct emptcp_pkt *parsed;
	struct emptcp_flow *flow;
	int backend;	  /* constant: the other branch is never compiled in */
	const char *name; /* the fragment's, with at least 32 zero bytes behind it */
};

/* What a fragment is. */
enum emptcp_fragment_kind {
	EMPTCP_KIND_SELECTOR = 1,
	EMPTCP_KIND_ACTOR = 2,
	EMPTCP_KIND_COMPANION = 3,
	EMPTCP_KIND_KEY = 4,
	EMPTCP_KIND_SOCKET = 5,
};

/* One record per fragment in section "emptcp.abi", read without loading. */
struct emptcp_abi {
	__u32 record_size;
	__u16 chain_abi;
	__u16 header_version;
	__u16 kind;  /* enum emptcp_fragment_kind */
	__u16 flags; /* bit 0: has parameters, bit 1: has state */
	__u32 reserved;
	char name[48];
};

#endif
