/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include <emptcp/connection.h>
#include <emptcp/key.h>
#include <emptcp/selector.h>

struct connection {
	__u32 token;
};

EMPTCP_SELECTOR(connection, pkt, struct connection, param)
{
	return param->token &&
	       (emptcp_connection(pkt, 0) == param->token || emptcp_connection(pkt, 1) == param->token);
}

/* The token of the end that is on this side: it is what this host's tools print. */
EMPTCP_KEY(connection_key, pkt, __u32, key)
{
	bool out = pkt->parsed->hook == EMPTCP_EGRESS;

	*key = emptcp_connection(pkt, out ? emptcp_source(pkt) : emptcp_target(pkt));
	return *key != 0;
}
