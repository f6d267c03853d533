# SPDX-License-Identifier: Apache-2.0
"""Which tests a lane runs that is not told: what holds on every kernel, and the plugins' packet tables."""

from __future__ import annotations

from lane.environment import ROOT
from lane.releases import Release

EVERY_KERNEL = "tests/kernel/test_every_kernel.py"
HOSTS = "plugins/actor-set-backup/tests/kernel/test_hosts.py"
MPTCP = f"{HOSTS}::test_both_ends_of_an_idle_subflow_are_told_once_per_change_and_given_back"
TABLE = "tests/kernel/test_packet_table.py"
# Files of plugins' tests that are no tables: their packets pass between hosts, or are searched for.
NO_TABLES = (
    *("coverage", "hop", "hosts", "hypervisor", "live", "many", "maps", "model", "pacing", "parted"),
    "window",
)
# Searches, which take hours in a guest, stand in other files too. Of tests that go through every place and
# engine, one engine for each place, as the table of all stages has it.
KINDS = "not hypothesis"
NAMES = "not (plain_model or fused-ingress-tc or tail-ingress-xdp or tail-egress-tc)"
# Seconds for one test in a guest.
TEST_LIMIT = 120


def words(release: Release) -> list[str]:
    """Return the words with which Python runs a lane's tests in the guest."""
    options = ["-v", "--durations=5", "-p", "no:cacheprovider", "--timeout", str(TEST_LIMIT)]
    if release.processors > 1:
        options += ["--numprocesses", str(release.processors), "--dist", "loadfile"]
    tests = [EVERY_KERNEL, *([MPTCP] if release.mptcp else [])]
    if release.tables:
        options += ["-m", KINDS, "-k", NAMES]
        tests += [TABLE, *tables()]
    return ["-m", "pytest", *options, *tests]


def tables() -> list[str]:
    """Return the files of the plugins' tests that run single packets."""
    found = sorted(ROOT.glob("plugins/*/tests/kernel/test_*.py"))
    return [str(path.relative_to(ROOT)) for path in found if path.stem.removeprefix("test_") not in NO_TABLES]
