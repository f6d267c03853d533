# SPDX-License-Identifier: Apache-2.0
"""One pure codec and builder for packets, TCP options and every MPTCP option of RFC 6824 and RFC 8684.

Nothing here needs root, a kernel or another part of emptcp, so that traces, tests and plugin authors
read and write packets by the same rules. ``decode`` is as tolerant as the kernel; ``build`` makes
correct packets by default and broken ones on demand.
"""
