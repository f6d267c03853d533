# SPDX-License-Identifier: Apache-2.0
"""Connections of this host that fell back, with their ends: what the kernel's counters leave out."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from emptcp.control.streaks import Ends
from emptcp.errors import EmptcpError
from emptcp.hooks import namespaces
from emptcp.hooks.namespaces import Namespace
from emptcp.mptcp import fallen
from emptcp.mptcp.routes import device_indexes
from emptcp.mptcp.sockets import Subflow, SubflowReader


@dataclass(frozen=True)
class Fallen:
    """A subflow of a connection that fell back, and the devices by which its packets come and go."""

    token: int
    ends: Ends
    devices: frozenset[str]


class Fallbacks:
    """The connections of a namespace that fell back. What had fallen back before is not told."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._known = self._tokens()

    def fresh(self) -> list[Fallen]:
        """Return those that fell back since the last time, as far as their sockets are there still."""
        before, self._known = self._known, self._tokens()
        return list(self._describe(self._known - before)) if self._known - before else []

    def _tokens(self) -> set[int]:
        try:
            return namespaces.call(self._namespace, fallen.tokens)
        except (EmptcpError, OSError):  # the namespace went, or this kernel does not list them
            return set()

    def _describe(self, tokens: set[int]) -> Iterator[Fallen]:
        try:
            with SubflowReader() as reader:
                ours = [one for one in reader.read(self._namespace) if one.token in tokens]
            found = namespaces.call(self._namespace, lambda: _devices(ours))
        except EmptcpError:
            return
        for subflow, names in zip(ours, found, strict=True):
            ends = (subflow.local, subflow.local_port), (subflow.remote, subflow.remote_port)
            yield Fallen(subflow.token, ends, names)


def _devices(subflows: Iterable[Subflow]) -> list[frozenset[str]]:
    """Return the devices by which each one's packets came, and by which the routes send them."""
    ours = list(subflows)
    came = [one.device for one in ours]
    goes = device_indexes(None, [replace(one, device=0) for one in ours])
    return [frozenset(_names(pair)) for pair in zip(came, goes, strict=True)]


def _names(indexes: Iterable[int]) -> Iterator[str]:
    for index in filter(None, indexes):
        try:
            yield socket.if_indextoname(index)
        except OSError:  # it went
            continue
