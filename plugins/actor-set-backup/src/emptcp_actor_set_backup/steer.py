# SPDX-License-Identifier: Apache-2.0
"""Tell MP_PRIO on the subflows that this host has, at once: also where no packet comes by to carry it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from emptcp.api import (
    Change,
    Device,
    FlowStates,
    Injector,
    Subflow,
    SubflowReader,
    device_indexes,
    devices,
    duplicate_ack,
    namespaces,
    next_sequence,
    options,
    sample_frames,
)

from .told import UNKNOWN, End, read, sender, value, write

ATTEMPTS = 5
"""How often an option is injected that was not taken, for the sequence number was old when it arrived."""

PAUSE = 0.005
"""Seconds before the first look whether it was taken; doubled each time."""

RIDE = 0.05
"""Seconds for which a busy subflow may carry an option to the peer in a packet of its own, never too late."""


@dataclass(frozen=True)
class Order:
    """A subflow of this host, the device it uses, and the backup bit that is to be told on it."""

    subflow: Subflow
    device: Device
    backup: bool


def judge(change: Change, steers: End) -> None:
    """Note, before the policy runs, what was asked for on the subflows that it will select."""
    flows = change.flows
    if flows is None:
        return
    with SubflowReader() as reader:
        for subflow, _device in _selected(change, steers, reader):
            known, end = read(flows, subflow), sender(subflow, steers)
            if known.own[end] == UNKNOWN and known.told[end] == UNKNOWN:
                earlier = subflow.backup if steers == "us" else subflow.request_backup
                write(flows, subflow, known.put(end, own=value(earlier)))


def steer(change: Change, steers: End, backup: bool) -> None:
    """Make the subflows that the policy selects backup, or as good as any other."""
    flows = change.flows
    if flows is None:
        return
    with SubflowReader() as reader:
        orders = [Order(*found, backup) for found in _selected(change, steers, reader)]
        _tell(change, flows, steers, orders, reader)


def give_back(change: Change, steers: End) -> None:
    """Restore, on the subflows that the policy selected, what was asked for before emptcp said something."""
    flows = change.flows
    if flows is None:
        return
    with SubflowReader() as reader:
        orders = [
            Order(subflow, device, known.own[end] == value(True))
            for subflow, device in _selected(change, steers, reader)
            for known, end in [(read(flows, subflow), sender(subflow, steers))]
            if known.told[end] != UNKNOWN
        ]
        _tell(change, flows, steers, orders, reader)
    for order in orders:
        known, end = read(flows, order.subflow), sender(order.subflow, steers)
        write(flows, order.subflow, known.put(end, told=UNKNOWN, own=UNKNOWN))


def _selected(change: Change, steers: End, reader: SubflowReader) -> Iterable[tuple[Subflow, Device]]:
    """Yield the open subflows of the namespace that the change's policy selects, with their devices."""
    here = [subflow for subflow in reader.read(change.namespace) if subflow.open]
    known = devices.list_devices(change.namespace or namespaces.resolve())
    by_index = {device.ifindex: device for device in known if device.name in change.devices}
    for subflow, index in zip(here, device_indexes(change.namespace, here), strict=True):
        device = by_index.get(index)
        if device and any(change.matches(frame) for frame in sample_frames(subflow, device, steers)):
            yield subflow, device


def _tell(change: Change, flows: FlowStates, steers: End, orders: list[Order], reader: SubflowReader) -> None:
    """Inject until all have taken it; what is left over the fragment tells in a passing packet."""
    if not orders:
        return
    with Injector(change.namespace) as injector:
        if steers == "us":
            missed = _tell_us(change, flows, orders, reader, injector)
        else:
            missed = _tell_peer(change, flows, orders, reader, injector)
    for order in missed:
        _note(flows, order, steers, UNKNOWN)


def _tell_us(
    change: Change, flows: FlowStates, orders: list[Order], reader: SubflowReader, injector: Injector
) -> list[Order]:
    """Deliver the option to our own stack until the socket has it; return the orders it did not take."""
    for order in orders:
        _note(flows, order, "us", value(order.backup))
    for attempt in range(ATTEMPTS + 1):
        orders = [
            order for order in _refreshed(change, orders, reader) if order.subflow.backup != order.backup
        ]
        if not orders or attempt == ATTEMPTS:
            break
        for order in orders:
            injector.deliver(order.device, _packet(order, "us"))
        time.sleep(PAUSE * 2**attempt)
    return orders


def _tell_peer(
    change: Change, flows: FlowStates, orders: list[Order], reader: SubflowReader, injector: Injector
) -> list[Order]:
    """Send the option to the peer where no packet carried it; return the orders that surely came too late."""
    time.sleep(RIDE)
    orders = [order for order in orders if not _is_told(flows, order)]
    for _attempt in range(ATTEMPTS):
        orders = _refreshed(change, orders, reader)
        if not orders:
            break
        for order in orders:
            _note(flows, order, "peer", value(order.backup))
            injector.send(_packet(order, "peer"))
        after = {order.subflow.endpoints: order.subflow for order in _refreshed(change, orders, reader)}
        orders = [order for order in orders if _came_late(order.subflow, after.get(order.subflow.endpoints))]
    return orders


def _packet(order: Order, steers: End) -> bytes:
    return duplicate_ack(order.subflow, [options.MpPrio(backup=order.backup)], steers)


def _refreshed(change: Change, orders: Iterable[Order], reader: SubflowReader) -> list[Order]:
    """Return the orders with their subflows as they are now, without those that ended."""
    now = {subflow.endpoints: subflow for subflow in reader.read(change.namespace) if subflow.open}
    return [
        replace(order, subflow=now[order.subflow.endpoints])
        for order in orders
        if order.subflow.endpoints in now
    ]


def _came_late(sent: Subflow, now: Subflow | None) -> bool:
    """Whether the subflow has sent more, meanwhile, than the injected packet's sequence number allows for.

    Data that left before the packet arrives before it, and the peer then drops it as old.
    """
    if now is None:
        return False
    return 0 < (now.snd_nxt - next_sequence(sent)) % (1 << 32) < 1 << 31


def _is_told(flows: FlowStates, order: Order) -> bool:
    return read(flows, order.subflow).said(sender(order.subflow, "peer")) == value(order.backup)


def _note(flows: FlowStates, order: Order, steers: End, told: int) -> None:
    """Let the fragment know what was told on the order's subflow, so that it doesn't tell it again."""
    known = read(flows, order.subflow)
    write(flows, order.subflow, replace(known.put(sender(order.subflow, steers), told=told), waits_since=0))
