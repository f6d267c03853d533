# SPDX-License-Identifier: Apache-2.0
"""Take a capture's packets through a runner, and tell for each what matched and what changed.

The runner runs one packet through the policy; this module decides what it is given, puts back what was
taken off, and describes the outcome. It knows nothing of the kernel.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal

from emptcp.errors import EmptcpError
from emptcp.packet.layers import Link
from emptcp.trace.capture import Capture, CapturedPacket, CaptureWriter
from emptcp.trace.diff import Change, changed
from emptcp.trace.fields import fields, subtypes
from emptcp.trace.head import head, restore
from emptcp.trace.link import Carried, carried

SCHEMA = 1
"""Number of the JSON lines' schema: fields are added without raising it, never changed or taken away."""

Verdict = Literal["pass", "drop", "redirect"]

TRUNCATED = "truncated"
NOT_IP = "not_ip"


@dataclass(frozen=True, slots=True)
class RunResult:
    """What one run of a policy did.

    data: the packet as it came out. matched: names of the policies that matched, in order. reason: why
    it was left untouched, a name of ``enum emptcp_reason`` in small letters, or None. duration_ns: time
    in the program, None if it was not taken.
    """

    verdict: Verdict
    data: bytes
    matched: tuple[str, ...] = ()
    reason: str | None = None
    duration_ns: int | None = None


Runner = Callable[[bytes, Link], RunResult]
"""Runs one packet, which begins with Ethernet or IP, through the policy."""


@dataclass(frozen=True, slots=True)
class Traced:
    """One packet of the capture and what became of it; ``out`` is None when it was dropped."""

    packet: CapturedPacket
    mptcp: tuple[int, ...]
    result: RunResult
    changed: tuple[Change, ...]
    out: bytes | None

    def as_json(self) -> dict[str, object]:
        """Return one JSON line's object."""
        return {
            "schema": SCHEMA,
            "n": self.packet.n,
            "mptcp": list(self.mptcp),
            "matched": list(self.result.matched),
            "verdict": self.result.verdict,
            "changed": [asdict(change) for change in self.changed],
            "reason": self.result.reason,
            "duration_ns": self.result.duration_ns,
        }


def trace_packet(packet: CapturedPacket, runner: Runner, path: str = "capture") -> Traced:
    """Run one captured packet.

    A truncated packet is not run (``truncated``), nor is one whose link header carries no frame or IP
    packet (``not_ip``). Raises EmptcpError for an unknown link type, naming ``path`` and the packet.
    """
    with _at(packet, path):
        taken = carried(packet.link_type, packet.data)
    shown = _subtypes(packet, taken)
    if packet.truncated or taken is None:
        reason = TRUNCATED if packet.truncated else NOT_IP
        return Traced(packet, shown, RunResult("pass", packet.data, reason=reason), (), packet.data)
    cut = head(taken.packet, taken.link)
    result = runner(cut.packet, cut.link)
    if result.verdict == "drop":
        return Traced(packet, shown, result, (), None)
    with _at(packet, path):
        whole = restore(cut, result.data)
    changes = tuple(changed(taken.packet, whole, taken.link))
    return Traced(packet, shown, result, changes, taken.restored(whole))


@contextmanager
def _at(packet: CapturedPacket, path: str) -> Iterator[None]:
    try:
        yield
    except EmptcpError as error:
        place = f"packet {packet.n} of '{path}'"
        raise EmptcpError(error.sentence, fix=error.fix, where=place) from error


def _subtypes(packet: CapturedPacket, taken: Carried | None) -> tuple[int, ...]:
    if taken is None:
        return ()
    size = len(taken.packet) + packet.original_length - len(packet.data)
    return tuple(subtypes(fields(taken.packet, taken.link, size)))


def trace(path: str, runner: Runner, write: str | None = None) -> Iterator[Traced]:
    """Run a capture's packets in order; write them as they came out, dropped ones left out.

    The written capture has the read one's format and link type. Raises EmptcpError as ``Capture`` does,
    after the whole packets, and when ``write`` names the capture itself.
    """
    if write is not None and os.path.exists(write) and os.path.samefile(path, write):
        raise EmptcpError(
            f"'{write}' is the capture that is read", fix="give --write another name: it would be overwritten"
        )
    with Capture(path) as capture:
        if write is None:
            yield from (trace_packet(packet, runner, path) for packet in capture)
            return
        with CaptureWriter(write, capture.section) as writer:
            for packet in capture:
                traced = trace_packet(packet, runner, path)
                if traced.out is not None:
                    writer.write(packet, traced.out)
                yield traced
