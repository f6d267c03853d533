# SPDX-License-Identifier: Apache-2.0
"""Which packets are of certain connections, as this host's sockets know them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from emptcp.mptcp.sockets import SubflowReader
from emptcp.packet.decode import decode
from emptcp.packet.mptcp import MpJoinSyn

if TYPE_CHECKING:
    from emptcp.hooks.namespaces import Namespace


class Members:
    """The subflows of connections, those of now; ``tokens`` are this host's.

    A SYN that joins has no socket here yet, or one that nobody answered, and is known by the token that it
    names: on its way out that is the peer's.
    """

    def __init__(self, namespace: Namespace | None, tokens: Collection[int]) -> None:
        self._tokens = set(tokens)
        self._ends: set[frozenset[tuple[object, int]]] = set()
        with SubflowReader() as reader:
            for one in reader.read(namespace):
                if one.token in tokens:
                    self._ends.add(frozenset({(one.local, one.local_port), (one.remote, one.remote_port)}))
                    self._tokens |= {one.remote_token} - {0}

    def sent(self, link: str, frame: bytes) -> bool:
        """Return whether a packet of a device with this kind of link is one of theirs."""
        found = decode(frame, "ethernet" if link == "ethernet" else "none")
        if found.ip is None or found.tcp is None:
            return False
        ends = frozenset({(found.ip.src, found.tcp.sport), (found.ip.dst, found.tcp.dport)})
        joins = (one.option for one in found.tcp.mptcp if isinstance(one.option, MpJoinSyn))
        return ends in self._ends or any(join.token in self._tokens for join in joins)
