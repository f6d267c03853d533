/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * MPTCP options: their layouts (RFC 8684 section 3, RFC 6824 section 3 for version 0), and how to read one.
 *
 * A read never touches the packet: the parser keeps a copy of the TCP options, and every change through these
 * headers keeps the copy true. An option is found only if the kernel would take it (net/mptcp/options.c):
 * legal length, known version. Of two options with one subtype the last counts, as in the kernel.
 */
#ifndef EMPTCP_OPTION_H
#define EMPTCP_OPTION_H

#include <emptcp/abi.h>
#include <emptcp/bpf.h>

#define EMPTCP_TCP_HEADER      20
#define EMPTCP_TCP_FLAGS       13 /* offset of the byte with these flags */
#define EMPTCP_TCP_OPTIONS_MAX 40

/* The flags in byte 13 of the TCP header. */
enum emptcp_tcp_flag {
	EMPTCP_FIN = 1 << 0,
	EMPTCP_SYN = 1 << 1,
	EMPTCP_RST = 1 << 2,
	EMPTCP_PSH = 1 << 3,
	EMPTCP_ACK = 1 << 4,
	EMPTCP_URG = 1 << 5,
};

/* ACK and nothing that takes a sequence number or ends the connection. */
static __always_inline bool emptcp_is_bare_ack(__u32 flags)
{
	return (flags & (EMPTCP_ACK | EMPTCP_SYN | EMPTCP_FIN | EMPTCP_RST)) == EMPTCP_ACK;
}

/* Kinds of TCP options that the parser knows. */
enum emptcp_option_kind {
	EMPTCP_KIND_EOL = 0,
	EMPTCP_KIND_NOP = 1,
	EMPTCP_KIND_WINDOW_SCALE = 3,
	EMPTCP_KIND_SACK = 5,
	EMPTCP_KIND_TIMESTAMPS = 8,
	EMPTCP_KIND_MD5 = 19,
	EMPTCP_KIND_AO = 29,
	EMPTCP_KIND_MPTCP = 30,
	EMPTCP_KIND_FAST_OPEN = 34,
	EMPTCP_KIND_EXPERIMENT = 254,
};

/* Subtypes of MPTCP options (RFC 8684, section 8.2). */
enum emptcp_subtype {
	EMPTCP_MP_CAPABLE = 0,
	EMPTCP_MP_JOIN = 1,
	EMPTCP_DSS = 2,
	EMPTCP_ADD_ADDR = 3,
	EMPTCP_REMOVE_ADDR = 4,
	EMPTCP_MP_PRIO = 5,
	EMPTCP_MP_FAIL = 6,
	EMPTCP_MP_FASTCLOSE = 7,
	EMPTCP_MP_TCPRST = 8,
};

/* Flags of the options: the low half of the third byte, or the whole fourth of MP_CAPABLE and DSS. */
enum emptcp_option_flag {
	EMPTCP_CAPABLE_CHECKSUM = 0x80,
	EMPTCP_CAPABLE_EXTENSIBILITY = 0x40,
	EMPTCP_CAPABLE_NO_JOIN_ID0 = 0x20,
	EMPTCP_CAPABLE_ALGORITHMS = 0x1f,
	EMPTCP_CAPABLE_SHA = 0x01, /* HMAC-SHA256 in version 1, HMAC-SHA1 in version 0 */
	EMPTCP_JOIN_BACKUP = 0x01,
	EMPTCP_DSS_ACK = 0x01,
	EMPTCP_DSS_ACK8 = 0x02,
	EMPTCP_DSS_MAP = 0x04,
	EMPTCP_DSS_SEQ8 = 0x08,
	EMPTCP_DSS_FIN = 0x10,
	EMPTCP_ADD_ADDR_ECHO = 0x01,
	EMPTCP_PRIO_BACKUP = 0x01,
	EMPTCP_TCPRST_TRANSIENT = 0x01,
};

#define EMPTCP_ON_WIRE __attribute__((packed))

/* What every MPTCP option begins with. */
struct emptcp_option_head {
	__u8 kind;
	__u8 len;
	__u8 subtype_flags; /* subtype << 4 | flags or version */
} EMPTCP_ON_WIRE;

/* MP_CAPABLE (RFC 8684, section 3.1): 12 bytes or more, 4 on a SYN of version 1. */
struct emptcp_mp_capable {
	struct emptcp_option_head head; /* low half of the third byte: the version */
	__u8 flags;
	__be64 sender_key;   /* from 12 bytes on */
	__be64 receiver_key; /* from 20 bytes on */
	__be16 data_len;     /* from 22 bytes on */
	__sum16 checksum;    /* 24 bytes */
} EMPTCP_ON_WIRE;

/* MP_JOIN on a SYN without ACK (section 3.2). */
struct emptcp_mp_join_syn { /* 12 bytes, on a SYN without ACK */
	struct emptcp_option_head head;
	__u8 address_id;
	__be32 token;
	__be32 nonce;
} EMPTCP_ON_WIRE;

/* MP_JOIN on a SYN with ACK. */
struct emptcp_mp_join_synack { /* 16 bytes */
	struct emptcp_option_head head;
	__u8 address_id;
	__be64 hmac;
	__be32 nonce;
} EMPTCP_ON_WIRE;

/* MP_JOIN on the third packet of the handshake. */
struct emptcp_mp_join_ack { /* 24 bytes */
	struct emptcp_option_head head;
	__u8 reserved;
	__u8 hmac[20];
} EMPTCP_ON_WIRE;

/* What a DSS begins with (section 3.3). */
struct emptcp_dss_head { /* the acknowledgement and the mapping follow as the flags say */
	struct emptcp_option_head head;
	__u8 flags;
} EMPTCP_ON_WIRE;

/* ADD_ADDR with an IPv4 address (section 3.4.1). */
struct emptcp_add_addr4 { /* a port (2 bytes) and, unless it is an echo, 8 bytes of HMAC may follow */
	struct emptcp_option_head head; /* low half of the third byte: flags; in version 0 the IP version */
	__u8 address_id;
	__be32 address;
} EMPTCP_ON_WIRE;

/* ADD_ADDR with an IPv6 address; what may follow is as with IPv4. */
struct emptcp_add_addr6 {
	struct emptcp_option_head head;
	__u8 address_id;
	__be32 address[4];
} EMPTCP_ON_WIRE;

/* MP_PRIO (section 3.3.8): whether the subflow is backup. */
struct emptcp_mp_prio {
	struct emptcp_option_head head;
} EMPTCP_ON_WIRE;

/* MP_FAIL (section 3.7): a checksum of a DSS was wrong. */
struct emptcp_mp_fail {
	struct emptcp_option_head head;
	__u8 reserved;
	__be64 data_seq;
} EMPTCP_ON_WIRE;

/* MP_FASTCLOSE (section 3.5): the connection ends at once. */
struct emptcp_mp_fastclose {
	struct emptcp_option_head head;
	__u8 reserved;
	__be64 receiver_key;
} EMPTCP_ON_WIRE;

/* MP_TCPRST (section 3.6): why a subflow was reset. */
struct emptcp_mp_tcprst {
	struct emptcp_option_head head;
	__u8 reason;
} EMPTCP_ON_WIRE;

/* TCP's timestamps option (RFC 7323). */
struct emptcp_timestamps {
	__u8 kind;
	__u8 len;
	__be32 value;
	__be32 echo;
} EMPTCP_ON_WIRE;

/* Whether a valid option of this subtype is in the packet. */
EMPTCP_PUBLIC bool emptcp_has(const struct emptcp_handle *pkt, enum emptcp_subtype subtype)
{
	return pkt->parsed->subtypes >> subtype & 1;
}

/* Its length in bytes; 0: absent. */
EMPTCP_PUBLIC __u32 emptcp_option_len(const struct emptcp_handle *pkt, enum emptcp_subtype subtype)
{
	return pkt->parsed->len[subtype & (EMPTCP_SUBTYPES - 1)];
}

/* Its offset from the first byte of the packet, for emptcp_rewrite(); 0: absent. */
EMPTCP_PUBLIC __u32 emptcp_option_at(const struct emptcp_handle *pkt, enum emptcp_subtype subtype)
{
	__u32 at = pkt->parsed->at[subtype & (EMPTCP_SUBTYPES - 1)];

	return at ? pkt->parsed->l4 + at : 0;
}

/* A place in the copy of the options, `at` counted from the TCP header. 63 + 40 bytes stay inside the value.
 */
static __always_inline const void *emptcp_option_copy(const struct emptcp_handle *pkt, __u32 at)
{
	return pkt->parsed->block + ((at - EMPTCP_TCP_HEADER) & 63);
}

/* The option's bytes, at least `size` (a constant, at most 40) of them; NULL: absent or shorter. */
EMPTCP_PUBLIC const void *emptcp_find(const struct emptcp_handle *pkt, enum emptcp_subtype subtype,
				      __u32 size)
{
	if (!emptcp_has(pkt, subtype) || emptcp_option_len(pkt, subtype) < size)
		return NULL;
	return emptcp_option_copy(pkt, pkt->parsed->at[subtype & (EMPTCP_SUBTYPES - 1)]);
}

/* The option by its layout, as in EMPTCP_OPTION(pkt, EMPTCP_MP_PRIO, struct emptcp_mp_prio), or NULL. */
#define EMPTCP_OPTION(pkt, subtype, TYPE) ((const TYPE *)emptcp_find(pkt, subtype, sizeof(TYPE)))

/* The timestamps option, or NULL. */
EMPTCP_PUBLIC const struct emptcp_timestamps *emptcp_timestamps(const struct emptcp_handle *pkt)
{
	if (!pkt->parsed->timestamps)
		return NULL;
	return emptcp_option_copy(pkt, pkt->parsed->timestamps);
}

/* A DSS option, decoded. Numbers are in host order; 4-byte ones stand in the low half. */
struct emptcp_dss {
	__u64 ack; /* valid if flags & EMPTCP_DSS_ACK */
	__u64 seq; /* this and the rest: valid if flags & EMPTCP_DSS_MAP */
	__u32 subflow_seq;
	__u16 data_len;
	__u8 flags;    /* without the reserved bits */
	bool checksum; /* the option ends in a checksum */
};

static __always_inline __u64 emptcp_dss_number(const __u8 *from, __u32 wide)
{
	if (wide)
		return bpf_be64(*(const __be64 *)from);
	return bpf_ntohl(*(const __be32 *)from);
}

/* Decode the packet's DSS. False: there is none, and `dss` is as it was. */
EMPTCP_PUBLIC bool emptcp_read_dss(const struct emptcp_handle *pkt, struct emptcp_dss *dss)
{
	const struct emptcp_dss_head *option = EMPTCP_OPTION(pkt, EMPTCP_DSS, struct emptcp_dss_head);
	const __u8 *next = (const __u8 *)(option + 1);
	__u32 used = sizeof(*option);

	if (!option)
		return false;
	__builtin_memset(dss, 0, sizeof(*dss));
	dss->flags = option->flags & 0x1f;
	if (dss->flags & EMPTCP_DSS_ACK) {
		dss->ack = emptcp_dss_number(next, dss->flags & EMPTCP_DSS_ACK8);
		used += dss->flags & EMPTCP_DSS_ACK8 ? 8 : 4;
	}
	if (dss->flags & EMPTCP_DSS_MAP) {
		next = (const __u8 *)option + used;
		dss->seq = emptcp_dss_number(next, dss->flags & EMPTCP_DSS_SEQ8);
		next += dss->flags & EMPTCP_DSS_SEQ8 ? 8 : 4;
		dss->subflow_seq = bpf_ntohl(*(const __be32 *)next);
		dss->data_len = bpf_ntohs(*(const __be16 *)(next + 4));
		used += dss->flags & EMPTCP_DSS_SEQ8 ? 14 : 10;
	}
	dss->checksum = emptcp_option_len(pkt, EMPTCP_DSS) > used;
	return true;
}

#endif
