/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A path manager for mptcpd: joins from this host's end of a path to each address that the peer announces.
 * In the lab this host's address on a path ends in .1, the peer's in .2.
 */
#include <netinet/in.h>
#include <stdbool.h>

#include <mptcpd/path_manager.h>
#include <mptcpd/plugin.h>

static void new_address(mptcpd_token_t token, mptcpd_aid_t id, const struct sockaddr *announced,
			struct mptcpd_pm *pm)
{
	struct sockaddr_in here;

	if (announced->sa_family != AF_INET)
		return;
	here = *(const struct sockaddr_in *)announced;
	here.sin_addr.s_addr = htonl((ntohl(here.sin_addr.s_addr) & ~0xffU) | 1);
	here.sin_port = 0;
	mptcpd_pm_add_subflow(pm, token, 1, id, (const struct sockaddr *)&here, announced, false);
}

static const struct mptcpd_plugin_ops operations = {.new_address = new_address};

static int begin(struct mptcpd_pm *pm)
{
	(void)pm;
	return mptcpd_plugin_register_ops("join", &operations) ? 0 : -1;
}

static void end(struct mptcpd_pm *pm)
{
	(void)pm;
}

MPTCPD_PLUGIN_DEFINE(join, "join announced addresses", MPTCPD_PLUGIN_PRIORITY_DEFAULT, begin, end)
