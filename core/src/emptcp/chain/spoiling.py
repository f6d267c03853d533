# SPDX-License-Identifier: Apache-2.0
"""Whether a running policy makes wrong packets of right ones, asked of a copy that is attached to nothing.

Where packets are heard only behind a program (XDP), or a count has no ends (wrong checksums of what came in),
nobody sees what the policy was given. So it is given right packets like those that were heard, and what it
makes of them is looked at. An actor that spoils only some packets, by what it counted before, say, is missed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from emptcp import pybpf
from emptcp.chain import filling, pins, states
from emptcp.chain.bind import bind
from emptcp.chain.dryrun import Runner
from emptcp.errors import EmptcpError
from emptcp.packet.build import build
from emptcp.packet.decode import Decoded, decode
from emptcp.policy import file, values

if TYPE_CHECKING:
    from emptcp.chain.description import Description, PolicyRecord
    from emptcp.plugins.catalog import Catalog

AGAIN = 5.0
"""Seconds after which a copy is made anew: sets, maps and parameters may have other values."""

MOST_PAYLOAD = 1000
"""Bytes of payload that a trial is given; the kernel takes no packet for one that is longer than a page."""

_VALUES_BEGIN = 4
"""Bytes of an option that say what it is: kind, length, of MPTCP's the subtype and the flags."""


class Spoilers:
    """Tries policies. Close it."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._copies: dict[tuple[object, ...], tuple[float, ExitStack, Runner | None]] = {}

    def spoils(self, about: Description, policy: PolicyRecord, packet: bytes) -> bool:
        """Return whether a policy of a program makes the TCP checksum of packets like this one wrong.

        ``packet`` begins with its IP header, and may be wrong itself. False where nobody can try.
        """
        runner = self._copy(about, policy)
        try:
            return runner is not None and any(_is_spoilt(runner, probe) for probe in probes(packet))
        except pybpf.BpfError:  # the kernel does not take it for a trial
            return False

    def close(self) -> None:
        """Unload the programs that were asked."""
        for _, opened, _ in self._copies.values():
            opened.close()
        self._copies.clear()

    def _copy(self, about: Description, policy: PolicyRecord) -> Runner | None:
        known = about.cookie, about.hook, about.backend, about.engine, policy.source
        made, opened, runner = self._copies.get(known, (-AGAIN, ExitStack(), None))
        now = time.monotonic()
        if now - made > AGAIN:
            opened.close()
            opened = ExitStack()
            runner = self._load(about, policy, opened)
            self._copies[known] = now, opened, runner
        return runner

    def _load(self, about: Description, record: PolicyRecord, opened: ExitStack) -> Runner | None:
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
            )
        except (EmptcpError, pybpf.BpfError):  # a plugin is gone, say
            return None
        return opened.enter_context(made)


def _is_spoilt(runner: Runner, probe: bytes) -> bool:
    result = runner.run(probe)
    return result.verdict in ("pass", "redirect") and decode(result.data).tcp_checksum_right is False


def probes(packet: bytes) -> Iterator[bytes]:
    """Yield right packets, as Ethernet frames, like one that was heard: as it is, and with other numbers.

    What an actor wrote without a word to the checksum may stand in what was heard. Written into the first
    once more it changes nothing, and into the second something.
    """
    found = decode(packet, "none")
    if found.tcp is None or found.ip is None:
        return
    payload = found.payload[:MOST_PAYLOAD]
    tcp = found.tcp
    yield _made(found, tcp.seq, tcp.ack, tcp.window, tcp.block, payload)
    yield _made(found, ~tcp.seq, ~tcp.ack, ~tcp.window & 0xFFFF, _others(found), _inverted(payload))


def _made(found: Decoded, seq: int, ack: int, window: int, block: bytes, payload: bytes) -> bytes:
    assert found.ip is not None
    assert found.tcp is not None
    ends: dict[str, Any] = {
        "family": found.ip.src.version,
        "src": found.ip.src,
        "dst": found.ip.dst,
        "sport": found.tcp.sport,
        "dport": found.tcp.dport,
    }
    numbers: dict[str, Any] = {"seq": seq, "ack": ack & 0xFFFFFFFF, "window": window}
    return build(**ends, **numbers, flags=int(found.tcp.flags), options=[block], payload=payload)


def _others(found: Decoded) -> bytes:
    """Return the options with other values: each is of the kind and the length that it was."""
    assert found.tcp is not None
    block = bytearray(found.tcp.block)
    for one in found.tcp.options:
        begin, end = one.offset + _VALUES_BEGIN, one.offset + len(one.raw)
        block[begin:end] = _inverted(bytes(block[begin:end]))
    return bytes(block)


def _inverted(data: bytes) -> bytes:
    return bytes(byte ^ 0xFF for byte in data)
