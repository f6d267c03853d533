# SPDX-License-Identifier: Apache-2.0
"""Two hosts with real MPTCP sockets, and policies in force between them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import mounts

if TYPE_CHECKING:
    from emptcp.chain.counters import Counters
    from emptcp.lab.host import Host
    from emptcp.lab.topology import Lab
    from emptcp.lab.transfer import Transfer


@dataclass(frozen=True)
class LiveLab:
    """What the fixture ``lab`` gives: hosts ``a`` and ``b``, joined by two paths.

    The devices of each host are called ``path1`` and ``path2`` Host a connects to host b.
    """

    lab: Lab

    @property
    def a(self) -> Host:
        """The host that connects."""
        return self.lab.a

    @property
    def b(self) -> Host:
        """The host that is connected to."""
        return self.lab.b

    def apply(self, host: Host, policy_file: str) -> None:
        """Make the table of a policy file's text be in force in a host, as ``emptcp apply`` does.

        :raises EmptcpError: the file is refused.
        """
        from emptcp.chain import apply
        from emptcp.policy import file

        apply.apply(file.loads(policy_file), host.netns)

    def transfer(self, size: int = 200_000) -> Transfer:
        """Send ``size`` bytes both ways over one MPTCP connection, and compare every byte.

        Its answer has ``intact``, ``mptcp``, ``subflows``, ``bad_checksums`` and how far the hosts' counters
        moved (``counters_a``, ``counters_b``).
        """
        return self.lab.transfer(size)

    def counts(self, stage: str) -> list[Counters]:
        """Return what a stage (``table/policy/stage``) did so far, once for each hook and device.

        :raises LookupError: no such stage is in force.
        """
        from emptcp.chain import owned, pins, running

        tree = pins.find()
        with running.everything(tree) as programs:
            told = [owned.read_counters(one.counters, one.description) for one in programs.values()]
        found = [counters[stage] for counters in told if stage in counters]
        if not found:
            known = sorted({name for counters in told for name in counters if name})
            raise LookupError(f"no stage {stage} is in force; known are: {', '.join(known) or 'none'}")
        return found


@contextmanager
def two_hosts(state: Path) -> Iterator[LiveLab]:
    """A lab whose links are as quick as the machine, with checksums on the wire. Needs root.

    What emptcp keeps meanwhile goes to a folder of this run, and is taken away behind it.
    """
    from emptcp.chain import apply, tables
    from emptcp.lab import topology

    before = os.environ.get("EMPTCP_RUN")
    os.environ["EMPTCP_RUN"] = str(state)
    try:
        with topology.two_hosts(link="veth", name=f"t{os.getpid()}") as built:
            _compute_checksums(built)
            try:
                yield LiveLab(built)
            finally:
                for name in tables.names():
                    apply.remove(name)
    finally:
        mounts.unmount(mounts.mounted(state))
        if before is None:
            del os.environ["EMPTCP_RUN"]
        else:
            os.environ["EMPTCP_RUN"] = before


def _compute_checksums(built: Lab) -> None:
    """Between veth devices the kernel leaves checksums out, and then nobody would see a wrong one."""
    for host, path in ((host, path) for host in (built.a, built.b) for path in built.paths):
        end = path.a if host is built.a else path.b
        host.run(["ethtool", "-K", end.device, "tx", "off"])
