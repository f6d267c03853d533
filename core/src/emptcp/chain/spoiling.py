# SPDX-License-Identifier: Apache-2.0
"""Whether a running policy makes wrong packets of right ones, asked of a copy that is attached to nothing.

Where packets are heard only behind a program (XDP, and what a host sends), or a count has no ends (wrong
checksums of what came in), nobody sees what the policy was given. So it is given right packets like those
that were heard, and what it makes of them is looked at: their checksum, or whether they are of MPTCP still.
An actor that spoils only some packets is found out where a fresh subflow, what the plugins' maps hold, or the
time makes it do so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

from emptcp import pybpf
from emptcp.chain import filling, pins, states
from emptcp.chain.bind import bind
from emptcp.chain.dryrun import Result, Runner
from emptcp.chain.lending import open_plugin_map
from emptcp.chain.probes import alike, established, first, handshake
from emptcp.chain.shared import no_elder
from emptcp.errors import EmptcpError
from emptcp.packet.decode import decode
from emptcp.packet.mptcp import Dss
from emptcp.policy import file, values

if TYPE_CHECKING:
    from emptcp.chain.description import Description, PolicyRecord
    from emptcp.plugins.catalog import Catalog

AGAIN = 5.0
"""Seconds after which a copy is made anew: sets, maps and parameters may have other values."""


_Elder = Callable[[str, str], pybpf.Map | None]


class Spoilers:
    """Tries policies. Close it."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._copies: dict[tuple[object, ...], tuple[float, ExitStack, Runner | None]] = {}

    def spoils(self, about: Description, policy: PolicyRecord, packet: bytes) -> bool:
        """Return whether a policy of a program makes the TCP checksum of packets like this one wrong.

        ``packet`` begins with its IP header, and may be wrong itself. False where nobody can try.
        """
        probes = list(alike(packet))
        return self._shows(about, policy, lambda runner: any(_is_spoilt(runner, one) for one in probes))

    def ends_mptcp(self, about: Description, policy: PolicyRecord, packet: bytes, leaves: bool) -> bool:
        """Return whether a policy lets connections begin as MPTCP, and then makes plain TCP of them.

        ``packet`` begins with its IP header, and came in by the program's device, or went out by it
        (``leaves``). The policy is asked of what passes it of such a connection. False where nobody can try.
        """
        answers = leaves != (about.hook == "egress")
        begins, goes_on = list(handshake(packet, answers)), list(first(packet, answers))
        return self._shows(
            about,
            policy,
            lambda runner: (
                not any(_is_stripped(runner, one) for one in begins)
                and any(_is_stripped(runner, one) for one in goes_on)
            ),
        )

    def breaks_mptcp(self, about: Description, policy: PolicyRecord, packet: bytes) -> bool:
        """Return whether a policy changes the DSS of packets of a connection that is there, or takes it off.

        ``packet``, from its IP header on, is one that was heard of it; the policy is asked of what passes in
        both directions. False where nobody can try.
        """
        probes = list(established(packet))
        return self._shows(about, policy, lambda runner: any(_is_altered(runner, one) for one in probes))

    def close(self) -> None:
        """Unload the programs that were asked."""
        for _, opened, _ in self._copies.values():
            opened.close()
        self._copies.clear()

    def _shows(self, about: Description, policy: PolicyRecord, ask: Callable[[Runner], bool]) -> bool:
        return any(_says(runner, ask) for runner in self._runners(about, policy))

    def _runners(self, about: Description, policy: PolicyRecord) -> Iterator[Runner]:
        """Yield a copy whose plugins know nothing yet, then one that begins with what their maps hold."""
        fresh = self._copy(about, policy, no_elder)
        if fresh is None:
            return
        yield fresh
        informed = self._copy(about, policy, open_plugin_map) if fresh.shared.has_plugins else None
        if informed is not None:
            yield informed

    def _copy(self, about: Description, policy: PolicyRecord, elder: _Elder) -> Runner | None:
        known = about.cookie, about.hook, about.backend, about.engine, policy.source, elder
        made, opened, runner = self._copies.get(known, (-AGAIN, ExitStack(), None))
        now = time.monotonic()
        if now - made > AGAIN:
            opened.close()
            opened = ExitStack()
            runner = self._load(about, policy, elder, opened)
            self._copies[known] = now, opened, runner
        return runner

    def _load(
        self, about: Description, record: PolicyRecord, elder: _Elder, opened: ExitStack
    ) -> Runner | None:
        tree = pins.find()
        if tree is None:
            return None
        try:
            table = file.loads(record.source)
            bound = bind(table, table.policies[0], about.hook, self._catalog, values.any_device)
            made = Runner(
                [bound],
                about.hook,
                about.backend.removesuffix("-generic"),
                engine=about.engine,
                contents=filling.contents(tree),
                slots=states.known(tree, about.cookie),
                elder=elder,
            )
        except (EmptcpError, pybpf.BpfError):  # a plugin is gone, say
            return None
        return opened.enter_context(made)


def _says(runner: Runner, ask: Callable[[Runner], bool]) -> bool:
    try:
        return ask(runner)
    except pybpf.BpfError:  # the kernel does not take it for a trial
        return False


def _is_spoilt(runner: Runner, probe: bytes) -> bool:
    result = runner.run(probe)
    return _goes_on(result) and decode(result.data).tcp_checksum_right is False


def _is_stripped(runner: Runner, probe: bytes) -> bool:
    return _loses(runner, probe, lambda packet: decode(packet).subtypes)


def _is_altered(runner: Runner, probe: bytes) -> bool:
    return _loses(runner, probe, _dss)


def _loses(runner: Runner, probe: bytes, of: Callable[[bytes], Iterable[object]]) -> bool:
    result = runner.run(probe)
    return _goes_on(result) and not set(of(probe)) <= set(of(result.data))


def _dss(packet: bytes) -> list[bytes]:
    found = decode(packet).tcp
    return [one.raw for one in found.mptcp if isinstance(one.option, Dss)] if found is not None else []


def _goes_on(result: Result) -> bool:
    return result.verdict in ("pass", "redirect")
