# SPDX-License-Identifier: Apache-2.0
"""Give back what was kept back on this host's subflows: an ACK of its own carries each stored ADD_ADDR."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from emptcp.api import (
    Change,
    Device,
    EmptcpError,
    Injector,
    Subflow,
    SubflowReader,
    duplicate_ack,
    open_plugin_map,
    sample_frames,
    seen_by,
    subflows_on_devices,
    tell,
)

from .blocked import ADDRESSES, PLUGIN, key_of, mark, waiting

End = Literal["us", "peer"]


def give_back(change: Change) -> None:
    """Let the announcements that the change's policy selects reach whom they were for.

    It selects them by themselves, or the subflow by packets as they usually pass. What came in is handed to
    our own stack, what was to go out is sent to the peer. Each is marked first, so that a ``blk_subflow``
    that runs lets it pass; one that can't be injected waits for a passing packet.
    """
    to: End = "us" if change.hook == "ingress" else "peer"
    if change.namespace is None:
        return
    table = open_plugin_map(PLUGIN, ADDRESSES)
    if table is None:
        return
    with table, SubflowReader() as reader, Injector(change.namespace) as injector:
        for subflow, device in subflows_on_devices(change, reader):
            key = key_of(subflow, "peer" if to == "us" else "us", change.namespace.cookie)
            for blocked in waiting(table, key):
                if not any(map(change.matches, _frames(subflow, device, blocked.option, to))):
                    continue
                mark(table, blocked, given=True)
                if not _told(change, subflow, device, blocked.option, reader, injector):
                    mark(table, blocked, given=False)


def _frames(subflow: Subflow, device: Device, option: bytes, to: End) -> Iterator[bytes]:
    yield seen_by(device, duplicate_ack(subflow, [option], to))
    yield from sample_frames(subflow, device, to)


def _told(
    change: Change, subflow: Subflow, device: Device, option: bytes, reader: SubflowReader, injector: Injector
) -> bool:
    to: End = "us" if change.hook == "ingress" else "peer"
    try:
        return tell(
            subflow, device, [option], to, namespace=change.namespace, reader=reader, injector=injector
        )
    except (EmptcpError, OSError):
        return False
