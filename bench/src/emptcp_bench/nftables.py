# SPDX-License-Identifier: Apache-2.0
"""A rule of nftables at a device of the lab, to compare emptcp with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from emptcp.lab.host import Host

_TABLE = """\
table netdev emptcp_bench {{
    chain compared {{
        type filter hook {hook} device "{device}" priority 0;
        {rule}
    }}
}}
"""


def missing() -> bool:
    """Whether this machine has no ``nft``."""
    return shutil.which("nft") is None


@contextmanager
def in_force(host: Host, hook: str, device: str, rule: str) -> Iterator[None]:
    """Keep one rule in force at ``ingress`` or ``egress`` of a host's device."""
    host.run(["nft", "-f", "-"], stdin=_TABLE.format(hook=hook, device=device, rule=rule))
    try:
        yield
    finally:
        host.run(["nft", "delete", "table", "netdev", "emptcp_bench"])
