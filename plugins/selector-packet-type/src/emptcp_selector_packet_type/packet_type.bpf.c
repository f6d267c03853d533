/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include <emptcp/selector.h>

/* The bits stand in emptcp.toml too. Up to bit 8 they are the numbers of the MPTCP subtypes. */
enum type {
	ADD_ADDR = 1 << EMPTCP_ADD_ADDR,
	SUBTYPES = (1 << (EMPTCP_MP_TCPRST + 1)) - 1,
	ADD_ADDR_ECHO = 1 << 9,
	DATA_ACK = 1 << 10,
	DATA_FIN = 1 << 11,
	SYN = 1 << 12,
	SYNACK = 1 << 13,
	PURE_ACK = 1 << 14,
	PAYLOAD = 1 << 15,
	FIN = 1 << 16,
	RST = 1 << 17,
	NO_MPTCP = 1 << 18,
};

struct packet_type {
	__u32 types;
};

static __always_inline __u32 tcp_types(const struct emptcp_pkt *parsed)
{
	__u8 flags = parsed->tcp_flags;
	__u32 types = 0;

	if (flags & EMPTCP_SYN)
		types |= flags & EMPTCP_ACK ? SYNACK : SYN;
	if (flags & EMPTCP_FIN)
		types |= FIN;
	if (flags & EMPTCP_RST)
		types |= RST;
	if (parsed->flags & EMPTCP_PKT_PURE_ACK)
		types |= PURE_ACK;
	if (parsed->payload_len)
		types |= PAYLOAD;
	return types;
}

static __always_inline __u32 mptcp_types(const struct emptcp_handle *pkt)
{
	const struct emptcp_dss_head *dss = EMPTCP_OPTION(pkt, EMPTCP_DSS, struct emptcp_dss_head);
	const struct emptcp_option_head *add = EMPTCP_OPTION(pkt, EMPTCP_ADD_ADDR, struct emptcp_option_head);
	__u32 types = pkt->parsed->subtypes & SUBTYPES;

	if (dss && dss->flags & EMPTCP_DSS_ACK)
		types |= DATA_ACK;
	if (dss && dss->flags & EMPTCP_DSS_FIN)
		types |= DATA_FIN;
	/* In version 0 these bits are the IP version: 4 or 6, never with the bit of an echo. */
	if (add && add->subtype_flags & EMPTCP_ADD_ADDR_ECHO)
		types ^= ADD_ADDR | ADD_ADDR_ECHO;
	return types;
}

EMPTCP_SELECTOR(packet_type, pkt, struct packet_type, param)
{
	__u32 types = tcp_types(pkt->parsed);

	types |= pkt->parsed->flags & EMPTCP_PKT_MPTCP ? mptcp_types(pkt) : NO_MPTCP;
	return types & param->types;
}
