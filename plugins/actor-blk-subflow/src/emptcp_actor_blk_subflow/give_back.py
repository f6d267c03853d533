# SPDX-License-Identifier: Apache-2.0
"""Give back what was kept back on this host's subflows: an ACK of its own carries each stored ADD_ADDR."""

from __future__ import annotations

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
    selected_subflows,
)

from .blocked import ADDRESSES, PLUGIN, key_of, mark, waiting

End = Literal["us", "peer"]


def give_back(change: Change) -> None:
    """Let the announcements on the subflows that the change's policy selects reach whom they were for.

    What came in is handed to our own stack, what was to go out is sent to the peer. Each is marked first, so
    that a ``blk_subflow`` that runs lets it pass; one that can't be injected waits for a passing packet.
    """
    to: End = "us" if change.hook == "ingress" else "peer"
    if change.namespace is None:
        return
    table = open_plugin_map(PLUGIN, ADDRESSES)
    if table is None:
        return
    with table, SubflowReader() as reader, Injector(change.namespace) as injector:
        for subflow, device in selected_subflows(change, to, reader):
            key = key_of(subflow, "peer" if to == "us" else "us", change.namespace.cookie)
            for blocked in waiting(table, key):
                mark(table, blocked, given=True)
                if not _sent(injector, subflow, device, blocked.option, to):
                    mark(table, blocked, given=False)


def _sent(injector: Injector, subflow: Subflow, device: Device, option: bytes, to: End) -> bool:
    packet = duplicate_ack(subflow, [option], to)
    try:
        if to == "us":
            injector.deliver(device, packet)
        else:
            injector.send(packet)
    except (EmptcpError, OSError):
        return False
    return True
