# SPDX-License-Identifier: Apache-2.0
"""Forget an address that was removed, whichever subflow of its connection said so (RFC 8684, 3.4.2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from emptcp.api import (
    Endpoint,
    StageEvent,
    Subflow,
    SubflowReader,
    connection_of,
    namespaces,
    open_plugin_map,
)

from .blocked import ADDRESSES, PLUGIN, end_key, forget, key_of, removed
from .subflow import is_between


def forget_on_all(event: StageEvent) -> None:
    """Forget it on all subflows of the connection: those of this host, or those that pass."""
    namespace = namespaces.by_cookie(event.netns)
    table = open_plugin_map(PLUGIN, ADDRESSES)
    if table is None or event.endpoints is None:
        return
    source = event.endpoints[event.direction]
    with SubflowReader() as reader:
        ours = reader.read(namespace)
    carrier = next((one for one in ours if is_between(one, event.endpoints)), None)
    if carrier is not None:
        found = _of_sockets(ours, carrier, source, namespace.cookie)
    else:
        found = _that_pass(event, source, namespace.cookie)
    with table:
        for key in found:
            forget(table, key, removed(event.data), event.time)


def _of_sockets(ours: list[Subflow], carrier: Subflow, source: Endpoint, cookie: int) -> Iterator[bytes]:
    announcer: Literal["us", "peer"] = "us" if source == (carrier.local, carrier.local_port) else "peer"
    for subflow in (one for one in ours if one.token == carrier.token):
        yield key_of(subflow, announcer, cookie)


def _that_pass(event: StageEvent, source: Endpoint, cookie: int) -> Iterator[bytes]:
    """Yield the keys of the same end on each subflow, as far as their handshakes passed here."""
    assert event.endpoints is not None
    connection = connection_of(cookie, event.endpoints)
    if connection is None:
        return
    carrier = next(one for one in connection.subflows if source in one.endpoints)
    is_first = carrier.endpoints.index(source) == connection.end(carrier)
    for subflow in connection.subflows:
        first = connection.end(subflow)
        yield end_key(subflow, first if is_first else 1 - first)
