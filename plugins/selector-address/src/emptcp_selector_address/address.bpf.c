/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include <emptcp/key.h>
#include <emptcp/selector.h>

struct address {
	struct emptcp_prefix saddr;
	struct emptcp_prefix daddr;
	struct emptcp_prefix any;
};

EMPTCP_SELECTOR(address, pkt, struct address, param)
{
	__u32 source = emptcp_source(pkt), target = emptcp_target(pkt);

	return emptcp_in_prefix(pkt, source, &param->saddr) && emptcp_in_prefix(pkt, target, &param->daddr) &&
	       (emptcp_in_prefix(pkt, source, &param->any) || emptcp_in_prefix(pkt, target, &param->any));
}

static __always_inline void write_prefix(const struct emptcp_handle *pkt, __u32 end,
					 struct emptcp_prefix_key *key)
{
	key->bits = 128;
	__builtin_memcpy(key->word, pkt->parsed->key.addr[end & 1], sizeof(key->word));
}

EMPTCP_KEY(saddr, pkt, struct emptcp_prefix_key, key)
{
	write_prefix(pkt, emptcp_source(pkt), key);
	return true;
}

EMPTCP_KEY(daddr, pkt, struct emptcp_prefix_key, key)
{
	write_prefix(pkt, emptcp_target(pkt), key);
	return true;
}
