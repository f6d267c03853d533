# SPDX-License-Identifier: Apache-2.0
"""Tell the plugins' Python sides what came, changed and went, after the packets' part did."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from emptcp import pybpf
from emptcp.chain import placement, states
from emptcp.chain.bind import bind, stage_ids
from emptcp.chain.decide import DETACH, Decision
from emptcp.chain.dryrun import Runner
from emptcp.chain.pins import Pins
from emptcp.chain.shared import HEAD_BYTES
from emptcp.hooks.devices import Device
from emptcp.hooks.namespaces import Namespace
from emptcp.plugins.catalog import BoundStage, Catalog
from emptcp.plugins.manager import Manager
from emptcp.plugins.occasions import Change, Endpoint
from emptcp.policy import file, model


@dataclass(frozen=True)
class _Known:
    """One stage of one policy on one hook of one device, as the plugins are told of it."""

    table: model.Table
    policy: model.Policy
    stage: BoundStage
    hook: str
    namespace: Namespace
    device: Device


@dataclass(frozen=True)
class _Key:
    """What makes a stage the same before and after a change."""

    cookie: int
    ifindex: int
    hook: str
    policy: str
    stage: str


class Effects:
    """The difference that one change of a table makes to its stages.

    Made before the change is carried out, as what runs is read here; told after it.
    """

    def __init__(
        self, pins: Pins, catalog: Catalog, manager: Manager, table: str, decisions: list[Decision]
    ) -> None:
        self._pins = pins
        self._catalog = catalog
        self._manager = manager
        self._before = dict(pair for decision in decisions for pair in self._ran(table, decision))
        self._after = dict(pair for decision in decisions for pair in self._will_run(table, decision))

    def removed(self) -> None:
        """Tell of the stages that are gone, so that their plugins take effects back."""
        for key, known in self._before.items():
            if key not in self._after:
                self._manager.hook.emptcp_removed(change=self._change(known, None))

    def applied(self) -> None:
        """Tell of the stages that are new or have other values."""
        for key, known in self._after.items():
            before = self._before.get(key)
            if before is None or before.stage.values != known.stage.values:
                self._manager.hook.emptcp_applied(change=self._change(known, before))

    def everything(self) -> None:
        """Tell of all stages that run, as ``emptcp run`` does when it starts."""
        for known in self._after.values():
            self._manager.hook.emptcp_applied(change=self._change(known, None))

    def _ran(self, table: str, decision: Decision) -> Iterator[tuple[_Key, _Known]]:
        about = decision.before.description if decision.before is not None else None
        for record in about.policies if about is not None else ():
            if record.table == table:
                yield from self._stages(record.source, decision)

    def _will_run(self, table: str, decision: Decision) -> Iterator[tuple[_Key, _Known]]:
        for policy in decision.policies if decision.action != DETACH else ():
            if policy.table == table:
                yield from self._stages(policy.source, decision)

    def _stages(self, source: str, decision: Decision) -> Iterator[tuple[_Key, _Known]]:
        table = file.loads(source)
        policy = table.policies[0]
        site = decision.site
        for name, spec in stage_ids(table, policy):
            indexes = placement.indexes(site.namespace)
            stage = self._catalog.bind(spec, devices=indexes)
            key = _Key(*site.key, decision.hook, policy.name, name)
            yield key, _Known(table, policy, stage, decision.hook, site.namespace, site.device)

    def _change(self, known: _Known, before: _Known | None) -> Change:
        return Change(
            policy=known.policy,
            stage=known.stage,
            hook=known.hook,
            devices=(known.device.name,),
            namespace=known.namespace,
            before=before.stage if before is not None else None,
            matches=self._matches(known),
            flows=self._flows(known),
        )

    def _matches(self, known: _Known) -> Callable[[bytes], bool]:
        """Return what runs the policy's expression over a frame, loading it at the first call."""
        runners: list[Runner] = []

        def matches(frame: bytes) -> bool:
            if not runners:
                bound = bind(known.table, known.policy, known.hook, self._catalog)
                runners.append(Runner([bound], known.hook, "tc", known.device.link))
            return bool(runners[0].run(frame).matched)

        return matches

    def _flows(self, known: _Known) -> States | None:
        path = self._pins.flows(known.namespace.cookie)
        place = states.known(self._pins, known.namespace.cookie).get(known.stage.type.plugin)
        if place is None or not path.exists():
            return None
        return States(pybpf.Map.from_pin(path), *place)


class States:
    """A plugin's slot in the entries of a flow table; see :class:`emptcp.plugins.occasions.FlowStates`."""

    def __init__(self, flows: pybpf.Map, offset: int, size: int) -> None:
        self._flows = flows
        self._start = HEAD_BYTES + offset
        self._size = size

    def get(self, one: Endpoint, other: Endpoint) -> bytes | None:
        """Return the slot's bytes, ``None`` for a subflow without an entry."""
        value = self._flows.lookup(key(one, other))
        return value[self._start : self._start + self._size] if value is not None else None

    def put(self, one: Endpoint, other: Endpoint, state: bytes) -> None:
        """Write the slot's bytes, making an entry where there is none."""
        value = bytearray(self._flows.lookup(key(one, other)) or bytes(self._flows.info.value_size))
        value[self._start : self._start + self._size] = state.ljust(self._size, b"\0")
        self._flows.update(key(one, other), bytes(value))


def key(one: Endpoint, other: Endpoint) -> bytes:
    """Return ``struct emptcp_key`` of two endpoints, in either order: lower address first, then port."""
    first, second = sorted((_mapped(one[0]), struct.pack("!H", one[1])) for one in (one, other))
    return first[0] + second[0] + first[1] + second[1]


def _mapped(address: IPv4Address | IPv6Address) -> bytes:
    """Return an address as 16 bytes, IPv4 as ::ffff:a.b.c.d."""
    if isinstance(address, IPv4Address):
        return bytes(10) + b"\xff\xff" + address.packed
    return address.packed
