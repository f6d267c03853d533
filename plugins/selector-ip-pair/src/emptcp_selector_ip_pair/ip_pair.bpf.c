/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include <emptcp/key.h>
#include <emptcp/selector.h>

struct ip_pair {
	struct emptcp_prefix saddr;
	struct emptcp_prefix daddr;
};

EMPTCP_SELECTOR(ip_pair, pkt, struct ip_pair, param)
{
	return emptcp_in_prefix(pkt, emptcp_source(pkt), &param->saddr) &&
	       emptcp_in_prefix(pkt, emptcp_target(pkt), &param->daddr);
}

/* Core tells the ends in the order in which sets and maps have them: the lower one first. */
struct ip_pair_key {
	struct emptcp_address end[2];
};

EMPTCP_KEY(ip_pair_key, pkt, struct ip_pair_key, key)
{
	__builtin_memcpy(&key->end[0], pkt->parsed->key.addr[0], sizeof(key->end[0]));
	__builtin_memcpy(&key->end[1], pkt->parsed->key.addr[1], sizeof(key->end[1]));
	return true;
}
