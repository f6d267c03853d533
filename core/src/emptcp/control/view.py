# SPDX-License-Identifier: Apache-2.0
"""The connections of a network namespace as an operator sees them: sockets, programs and controllers in one.

What `emptcp connections`, `explain` and `top` print. On a host without the sockets it is what programs saw.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from emptcp.chain import flows, off, pins, running, tables
from emptcp.chain.session import recorded
from emptcp.chain.trial import Trials, in_force
from emptcp.control import path
from emptcp.control.seen import Look, Metrics, Passes, Rates, Seen
from emptcp.control.settings import ControllerMaps
from emptcp.control.subflow import ConnectionSubflow
from emptcp.errors import EmptcpError
from emptcp.hooks import devices, namespaces
from emptcp.mptcp.measured import measured
from emptcp.mptcp.routes import device_indexes
from emptcp.mptcp.samples import passing_frames, sample_frames
from emptcp.mptcp.sockets import SubflowReader, unpack
from emptcp.plugins.catalog import Catalog
from emptcp.plugins.manager import Manager
from emptcp.pybpf import BpfError

if TYPE_CHECKING:
    from emptcp.chain.pins import Pins
    from emptcp.chain.running import Everything, Running
    from emptcp.hooks.devices import Device
    from emptcp.hooks.namespaces import Namespace
    from emptcp.plugins.occasions import Action, ConnectionEntry, Endpoint, Ends, FlowEntry

AGAIN = 5.0
"""Seconds after which it is asked again which policies select a subflow."""


class View:
    """Looks at one network namespace. Unloaded by :meth:`close`.

    Raises :class:`EmptcpError` where the kernel can't list subflows.
    """

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self._manager = Manager.of_enabled()
        self._catalog: Catalog | None = None
        self._trials: Trials | None = None
        self._before: dict[tuple[Ends, int], tuple[float, int, int]] = {}
        self._selected: dict[tuple[Ends, int], tuple[float, object, tuple[tuple[str, str], ...]]] = {}
        self._devices: dict[tuple[Ends, int], int] = {}
        with ExitStack() as opened:
            self._reader = opened.enter_context(SubflowReader())
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Unload what was loaded."""
        if self._trials is not None:
            self._trials.close()
        self._opened.close()

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def look(self) -> Look:
        """Look now."""
        tree = pins.find()
        records = self._reader.records(self.namespace)
        sockets = self._measure(self._of_sockets(records))
        entries = flows.entries(tree, self.namespace.cookie) if tree is not None else []
        found = list(self._with_paths(self._with_entries(sockets, entries)))
        if tree is not None:
            found = list(self._with_policies(found, tree))
        found.sort(key=lambda one: (one.token, str(one.ends)))
        return Look(found, self._whole(found), records)

    def passing(self, seen: Seen) -> Iterator[Passes]:
        """Yield the programs that a subflow's packets pass now, with what these would do to them.

        The programs are open until the next one is asked for.
        """
        tree = pins.find()
        if tree is None:
            return
        with running.everything(tree) as everything:
            yield from self._passes(seen, tree, self._here(everything))

    # The parts of a look

    def _of_sockets(self, records: bytes) -> dict[frozenset[Endpoint], Seen]:
        sockets = list(unpack(records))
        found: dict[frozenset[Endpoint], Seen] = {}
        for (_, one), socket in zip(measured(records), sockets, strict=True):
            kernel = ConnectionSubflow(one)
            seen = Seen((kernel.local, kernel.remote), kernel, socket)
            found[frozenset(seen.ends)] = seen
        return found

    def _measure(self, found: dict[frozenset[Endpoint], Seen]) -> dict[frozenset[Endpoint], Seen]:
        """Add what each subflow carried since the look before."""
        now, before, self._before = time.monotonic(), self._before, {}
        for key, one in found.items():
            assert one.kernel is not None
            counts = one.kernel.acked, one.kernel.received
            self._before[one.ends, one.token] = now, *counts
            last = before.get((one.ends, one.token))
            if last is not None and now > last[0]:
                sent, received = (
                    (count - old) / (now - last[0]) for count, old in zip(counts, last[1:], strict=True)
                )
                found[key] = replace(one, rates=Rates(sent, received))
        return found

    def _with_entries(
        self, found: dict[frozenset[Endpoint], Seen], entries: Sequence[FlowEntry]
    ) -> list[Seen]:
        """Add what programs keep, and the subflows that only they know."""
        hook = self._manager.hook
        metrics = _merged(hook.emptcp_metrics(entries=entries) if entries else [], len(entries))
        actions: list[list[Action]] = [[] for _ in entries]
        for answer in hook.emptcp_actions(entries=entries) if entries else []:
            for mine, told in zip(actions, answer, strict=False):
                mine += told
        for entry, numbers, done in zip(entries, metrics, actions, strict=True):
            key = frozenset(entry.endpoints)
            known = found.get(key) or Seen(entry.endpoints)
            ours = entry.endpoints.index(known.ends[0]) if known.kernel is not None else None
            if known.socket is not None:
                tokens = known.socket.token, known.socket.remote_token
                entry = replace(entry, tokens=tokens[::-1] if ours else tokens)
            found[key] = replace(known, entry=entry, ours=ours, metrics=numbers, actions=tuple(done))
        return list(found.values())

    def _with_paths(self, found: Sequence[Seen]) -> Iterator[Seen]:
        """Add devices and paths."""
        ours = [one for one in found if one.socket is not None]
        fresh = [one for one in ours if (one.ends, one.token) not in self._devices]
        sockets = [one.socket for one in fresh if one.socket is not None]
        told = dict(
            zip(
                ((one.ends, one.token) for one in fresh), device_indexes(self.namespace, sockets), strict=True
            )
        )
        known = self._devices | told
        # One that is not known yet is asked for again.
        self._devices = {key: known[key] for key in ((one.ends, one.token) for one in ours) if known[key]}
        places = self._places()
        for one in found:
            device = known.get((one.ends, one.token), 0)
            name = path.at(places, one.ends[0][0], device) if one.kernel is not None else None
            yield replace(one, device=device, path=name or "")

    def _places(self) -> dict[str, str]:
        """Return what tells paths: those of all tables in force; where two say something, the first."""
        found: dict[str, str] = {}
        for entry in tables.entries():
            if "[path." in entry.text:
                paths = [path.Path.of(one) for one in recorded(entry).paths]
                found = path.places(self.namespace, paths) | found
        return found

    def _with_policies(self, found: Sequence[Seen], tree: Pins) -> Iterator[Seen]:
        """Add which policies select each subflow, and who made it backup."""
        settings = dict(self._settings(tree)) if any(one.kernel is not None for one in found) else {}
        with running.everything(tree) as everything:
            here = self._here(everything)
            actors = {
                (policy.table, policy.name): {stage.name for stage in policy.stages}
                for one, _ in here
                for policy in one.description.policies
            }
            selected, self._selected = self._selected, {}
            for one in found:
                policies = self._policies(one, tree, here, selected)
                by = _backup_by(one, policies, actors, settings)
                yield replace(one, policies=policies, backup_by=by)

    def _policies(
        self,
        one: Seen,
        tree: Pins,
        here: Sequence[tuple[Running, Device]],
        selected: Mapping[tuple[Ends, int], tuple[float, object, tuple[tuple[str, str], ...]]],
    ) -> tuple[tuple[str, str], ...]:
        key, now = (one.ends, one.token), time.monotonic()
        programs = tuple((program.location, in_force(program)) for program, _ in here)
        last = selected.get(key)
        if last is None or last[1] != programs or now - last[0] > AGAIN:
            names = (name for passes in self._passes(one, tree, here) for name in passes.policies)
            last = now, programs, tuple(dict.fromkeys(names))
        self._selected[key] = last
        return last[2]

    def _here(self, everything: Everything) -> list[tuple[Running, Device]]:
        """Return the namespace's programs that are attached, each with its device."""
        if off.read_or_see(everything).everything:
            return []
        by_index = {one.ifindex: one for one in devices.list_devices(self.namespace)}
        return [
            (one, by_index[one.description.ifindex])
            for one in everything.values()
            if one.location.cookie == self.namespace.cookie
            and one.description.ifindex in by_index
            and not one.detached
        ]

    def _passes(self, seen: Seen, tree: Pins, here: Iterable[tuple[Running, Device]]) -> Iterator[Passes]:
        self._catalog = self._catalog or Catalog.of_enabled()
        self._trials = self._trials or Trials(tree, self._catalog, self.namespace)
        entry = flows.raw(tree, self.namespace.cookie, *seen.ends)
        for one, device in here:
            for direction, frames in _frames(seen, one.description.hook, device):
                tried = self._trials.ask(one, device.link, frames, entry)
                yield Passes(one, tried, direction)

    def _settings(self, tree: Pins) -> Iterator[tuple[bytes, str]]:
        """Yield each subflow that a controller made backup, by its key, and the controller."""
        for entry in tables.entries():
            if "[[controller]]" not in entry.text:
                continue
            self._catalog = self._catalog or Catalog.of_enabled()
            table = recorded(entry)
            for controller in table.controllers:
                try:
                    with ControllerMaps(tree, table, controller, self._catalog) as maps:
                        yield from (
                            (key, controller.name) for key, of in maps.read().items() if of.get("backup")
                        )
                except (EmptcpError, BpfError):  # it sets nothing, or is not in force any more
                    continue

    def _whole(self, found: Sequence[Seen]) -> list[tuple[ConnectionEntry, Metrics]]:
        """Return the connections of the subflows that programs saw, as far as tokens tell."""
        ours = {one.kernel.token for one in found if one.kernel is not None}
        connections = flows.connections([one.entry for one in found if one.entry is not None], ours)
        hook = self._manager.hook.emptcp_connection_metrics
        metrics = _merged(hook(connections=connections) if connections else [], len(connections))
        return list(zip(connections, metrics, strict=True))


def at(netns: str) -> View:
    """Return a view of a namespace by its name, path or process; empty: this one."""
    return View(namespaces.resolve(netns))


def _frames(seen: Seen, hook: str, device: Device) -> Iterator[tuple[int, tuple[bytes, bytes]]]:
    """Yield the packets of a subflow that pass a hook of a device: of our socket, or in both directions."""
    if seen.socket is not None:
        if seen.device == device.ifindex:
            yield -1, sample_frames(seen.socket, device, "us" if hook == "ingress" else "peer")
        return
    for direction, (source, target) in enumerate((seen.ends, seen.ends[::-1])):
        yield direction, passing_frames(source, target, device)


def _backup_by(
    one: Seen,
    policies: Iterable[tuple[str, str]],
    actors: Mapping[tuple[str, str], set[str]],
    settings: Mapping[bytes, str],
) -> str:
    """Return who made a subflow backup for this host."""
    if one.kernel is None or one.kernel.backup_by == "":
        return ""
    if one.kernel.is_told_backup:
        if one.kernel.key in settings:
            return f"controller {settings[one.kernel.key]}"
        told = [action.actor for action in one.actions if action.end == one.ours and action.backup]
        named = (name for table, name in policies for actor in told if actor in actors[table, name])
        if told:
            return f"policy {next(named, '')}".rstrip()
    return one.kernel.backup_by


def _merged(answers: Iterable[Sequence[Metrics]], count: int) -> list[dict[str, float]]:
    """Merge what the plugins tell of each subflow or connection."""
    merged: list[dict[str, float]] = [{} for _ in range(count)]
    for answer in answers:
        for row, found in zip(merged, answer, strict=False):
            row.update(found)
    return merged
