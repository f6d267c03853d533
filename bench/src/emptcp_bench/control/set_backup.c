/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A minimal path manager for mptcpd: joins to the address that the peer announces, and turns that subflow
 * into a backup, or back, whenever this host gets another address. It says when it called, in nanoseconds
 * since 1970. In the lab this host's address on a path ends in .1, the peer's in .2.
 */
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

#include <mptcpd/path_manager.h>
#include <mptcpd/plugin.h>

static struct {
	mptcpd_token_t token;
	struct sockaddr_in here, there;
	bool known, backup;
} joined;

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

static void new_subflow(mptcpd_token_t token, const struct sockaddr *here, const struct sockaddr *there,
			bool backup, struct mptcpd_pm *pm)
{
	(void)pm;
	joined.token = token;
	joined.here = *(const struct sockaddr_in *)here;
	joined.there = *(const struct sockaddr_in *)there;
	joined.backup = backup;
	joined.known = true;
	fprintf(stderr, "joined\n");
}

static void new_local_address(const struct mptcpd_interface *device, const struct sockaddr *address,
			      struct mptcpd_pm *pm)
{
	struct timespec now;
	int code;

	(void)device;
	(void)address;
	if (!joined.known)
		return;
	joined.backup = !joined.backup;
	clock_gettime(CLOCK_REALTIME, &now);
	code = mptcpd_pm_set_backup(pm, joined.token, (const struct sockaddr *)&joined.here,
				    (const struct sockaddr *)&joined.there, joined.backup);
	fprintf(stderr, "called %lld %d %d\n", now.tv_sec * 1000000000LL + now.tv_nsec, code, joined.backup);
}

static const struct mptcpd_plugin_ops operations = {
	.new_address = new_address,
	.new_subflow = new_subflow,
	.new_local_address = new_local_address,
};

static int begin(struct mptcpd_pm *pm)
{
	(void)pm;
	return mptcpd_plugin_register_ops("set_backup", &operations) ? 0 : -1;
}

static void end(struct mptcpd_pm *pm)
{
	(void)pm;
}

MPTCPD_PLUGIN_DEFINE(set_backup, "turn a subflow into a backup", MPTCPD_PLUGIN_PRIORITY_DEFAULT, begin, end)
