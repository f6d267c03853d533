# SPDX-License-Identifier: Apache-2.0
"""What chains cost real flows: connections between two hosts of the lab, programs attached, and timed.

traffic     as many flows at a time as wanted, of sizes that were published
attached    programs on the devices of host b, and what the kernel says they took
chains      the policies that are measured
rounds      programs in turn while the same flows go on
"""
