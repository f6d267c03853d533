# SPDX-License-Identifier: Apache-2.0
"""Tell MP_PRIO on the subflows that this host has, at once: also where no packet comes by to carry it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from emptcp.api import (
    Change,
    Device,
    EmptcpError,
    Ends,
    FlowStates,
    Injector,
    Subflow,
    SubflowReader,
    duplicate_ack,
    next_sequence,
    options,
    sample_frames,
    seen_by,
    selected_subflows,
    subflows_on_devices,
)

from .told import UNKNOWN, End, read, sender, value, write

ATTEMPTS = 5
"""How often an option is injected that was not taken, for the sequence number was old when it arrived."""

PAUSE = 0.005
"""Seconds before the first look whether it was taken; doubled each time."""

HOLD = 5_000_000_000
"""Nanoseconds from the judging for which passing packets leave the telling to the hooks, if these fail."""


@dataclass(frozen=True)
class Order:
    """A subflow of this host, the device it uses, and the backup bit that is to be told on it."""

    subflow: Subflow
    device: Device
    backup: bool


def judge(change: Change, steers: End) -> None:
    """Before the policy runs, on the subflows that it will select: note what was asked for, and keep
    passing packets from telling what :func:`steer` is going to.
    """
    flows = change.flows
    if flows is None:
        return
    with SubflowReader() as reader:
        for subflow, _device in selected_subflows(change, steers, reader):
            known, end = read(flows, subflow), sender(subflow, steers)
            if known.own[end] == UNKNOWN and known.told[end] == UNKNOWN:
                earlier = subflow.backup if steers == "us" else subflow.request_backup
                known = known.put(end, own=value(earlier))
            write(flows, subflow, known.hold(end, time.monotonic_ns() + HOLD))


def steer(change: Change, steers: End, backup: bool) -> None:
    """Make the subflows that the policy selects backup, or as good as any other."""
    flows = change.flows
    if flows is None:
        return
    with SubflowReader() as reader:
        orders = [Order(*found, backup) for found in selected_subflows(change, steers, reader)]
        if steers == "us":
            _tell_us(change, flows, orders, reader)
        else:
            _tell_peer(change, flows, orders, reader)


def follow(change: Change, steers: End, entries: Mapping[Ends, bool | None]) -> None:
    """Tell single subflows of the policy what a map says of them; ``None`` gives back what was before."""
    flows = change.flows
    if flows is None:
        return
    with SubflowReader() as reader:
        found = list(_listed(change, steers, reader, entries))
        gone = [(subflow, device) for subflow, device, backup in found if backup is None]
        orders = [Order(subflow, device, backup) for subflow, device, backup in found if backup is not None]
        for order in orders:
            _note_own(flows, order, steers)
        if steers == "us":
            _tell_us(change, flows, orders, reader)
        else:
            _tell_peer(change, flows, orders, reader)
        _give_back(change, flows, gone, steers, reader)


def _listed(
    change: Change, steers: End, reader: SubflowReader, entries: Mapping[Ends, bool | None]
) -> Iterator[tuple[Subflow, Device, bool | None]]:
    """Yield the subflows that have an entry here, on the change's devices, if the policy selects them."""
    for subflow, device in subflows_on_devices(change, reader):
        ends = (subflow.local, subflow.local_port), (subflow.remote, subflow.remote_port)
        for one in (ends, ends[::-1]):
            if one in entries and any(map(change.matches, sample_frames(subflow, device, steers))):
                yield subflow, device, entries[one]


def _note_own(flows: FlowStates, order: Order, steers: End) -> None:
    """Note what was asked for before, if nobody did: where a packet told it already, the other bit."""
    known, end = read(flows, order.subflow), sender(order.subflow, steers)
    if known.own[end] != UNKNOWN:
        return
    bit = order.subflow.backup if steers == "us" else order.subflow.request_backup
    earlier = bit if known.told[end] == UNKNOWN else not order.backup
    write(flows, order.subflow, known.put(end, own=value(earlier)))


def give_back(change: Change, steers: End) -> None:
    """Restore, on the subflows that the policy selected, what was asked for before emptcp said something."""
    if change.flows is None:
        return
    with SubflowReader() as reader:
        found = selected_subflows(change, steers, reader)
        _give_back(change, change.flows, found, steers, reader)


def _give_back(
    change: Change,
    flows: FlowStates,
    found: Iterable[tuple[Subflow, Device]],
    steers: End,
    reader: SubflowReader,
) -> None:
    orders = [
        Order(subflow, device, known.own[end] == value(True))
        for subflow, device in found
        for known, end in [(read(flows, subflow), sender(subflow, steers))]
        if known.told[end] != UNKNOWN
    ]
    if steers == "us":
        _tell_us(change, flows, orders, reader)
    elif orders:
        with Injector(change.namespace) as injector:
            _send_unseen(change, flows, orders, reader, injector)
    for order in orders:
        _note(flows, order, steers, told=UNKNOWN, own=UNKNOWN)


def _tell_us(change: Change, flows: FlowStates, orders: list[Order], reader: SubflowReader) -> None:
    """Deliver the option to our own stack; what its sockets don't take the fragment tells in passing."""
    for order in orders:
        _note(flows, order, "us", told=value(order.backup))
    try:
        orders = _due(change, orders, reader)
        if orders:
            with Injector(change.namespace) as injector:
                orders = _deliver(change, orders, reader, injector)
    finally:
        for order in orders:
            _note(flows, order, "us", told=value(not order.backup))
            _release(flows, order, "us")


def _deliver(change: Change, orders: list[Order], reader: SubflowReader, injector: Injector) -> list[Order]:
    """Repeat until the sockets have it: they drop it when data overtook it. Return what they did not take."""
    for attempt in range(ATTEMPTS):
        for order in orders:
            injector.deliver(order.device, _packet(order, "us"))
        time.sleep(PAUSE * 2**attempt)
        orders = _due(change, orders, reader)
        if not orders:
            break
    return orders


def _due(change: Change, orders: list[Order], reader: SubflowReader) -> list[Order]:
    """Return the orders whose sockets have another bit."""
    return [order for order in _refreshed(change, orders, reader) if order.subflow.backup != order.backup]


def _tell_peer(change: Change, flows: FlowStates, orders: list[Order], reader: SubflowReader) -> None:
    """Send the option to the peer where nothing has said it."""
    orders = [order for order in _refreshed(change, orders, reader) if not _is_told(flows, order)]
    try:
        if orders:
            with Injector(change.namespace) as injector:
                _send(change, flows, orders, reader, injector)
    except EmptcpError:
        for order in orders:
            _release(flows, order, "peer")
        raise


def _send(
    change: Change, flows: FlowStates, orders: list[Order], reader: SubflowReader, injector: Injector
) -> None:
    """Send each order once: the fragment, which it passes, notes it and lets it come neither late nor twice.

    One that does not pass there yet, for the neighbour is not known, does later.
    """
    unseen = []
    for order in orders:
        if not change.matches(seen_by(order.device, _packet(order, "peer"))):
            unseen.append(order)
        elif not _sent(injector, order):
            _release(flows, order, "peer")
    _send_unseen(change, flows, unseen, reader, injector)


def _send_unseen(
    change: Change, flows: FlowStates, orders: list[Order], reader: SubflowReader, injector: Injector
) -> None:
    """Send what no fragment looks at; repeat what may have come too late."""
    for _attempt in range(ATTEMPTS):
        orders = _refreshed(change, orders, reader)
        if not orders:
            break
        for order in orders:
            _note(flows, order, "peer", told=value(order.backup))
        unsent = [order for order in orders if not _sent(injector, order)]
        for order in unsent:
            _note(flows, order, "peer", told=UNKNOWN)
            _release(flows, order, "peer")
        orders = [order for order in orders if order not in unsent]
        after = {order.subflow.endpoints: order.subflow for order in _refreshed(change, orders, reader)}
        orders = [order for order in orders if _came_late(order.subflow, after.get(order.subflow.endpoints))]


def _sent(injector: Injector, order: Order) -> bool:
    """Send an order's packet to the peer; False where it can't leave now, for there is no route, say."""
    try:
        injector.send(_packet(order, "peer"))
    except OSError:
        return False
    return True


def _packet(order: Order, steers: End) -> bytes:
    return duplicate_ack(order.subflow, [options.MpPrio(backup=order.backup)], steers)


def _refreshed(change: Change, orders: Iterable[Order], reader: SubflowReader) -> list[Order]:
    """Return the orders with their subflows as they are now, without those that ended."""
    orders = list(orders)
    if not orders:
        return []
    now = {subflow.endpoints: subflow for subflow in reader.read(change.namespace) if subflow.open}
    return [
        replace(order, subflow=now[order.subflow.endpoints])
        for order in orders
        if order.subflow.endpoints in now
    ]


def _came_late(sent: Subflow, now: Subflow | None) -> bool:
    """Whether the subflow may have sent more than the injected packet's sequence number allows for.

    Data that left before the packet arrives before it, and the peer then drops it as old.
    """
    if now is None:
        return False
    return 0 < (now.snd_nxt - next_sequence(sent)) % (1 << 32) < 1 << 31


def _is_told(flows: FlowStates, order: Order) -> bool:
    return read(flows, order.subflow).said(sender(order.subflow, "peer")) == value(order.backup)


def _note(
    flows: FlowStates, order: Order, steers: End, *, told: int | None = None, own: int | None = None
) -> None:
    """Let the fragment know of the order's subflow what is given."""
    known, end = read(flows, order.subflow), sender(order.subflow, steers)
    write(flows, order.subflow, known.put(end, told=told, own=own))


def _release(flows: FlowStates, order: Order, steers: End) -> None:
    """Let passing packets tell it at once."""
    known, end = read(flows, order.subflow), sender(order.subflow, steers)
    write(flows, order.subflow, known.hold(end, 0))
