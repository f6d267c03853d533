# SPDX-License-Identifier: Apache-2.0
"""A traced capture for the eye: one line a packet, what changed beneath it, and a sum at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from emptcp.packet.decode import Decoded, decode
from emptcp.packet.subtype import Subtype
from emptcp.packet.tcp import Flag
from emptcp.trace.link import carried
from emptcp.trace.run import Traced

_FLAGS = {Flag.SYN: "S", Flag.FIN: "F", Flag.RST: "R", Flag.PSH: "P", Flag.ACK: "."}
_LONGEST = 60


def table(packets: Iterable[Traced]) -> Iterator[str]:
    """Yield the lines of the report, each as soon as its packet is known."""
    totals: Counter[str] = Counter()
    for traced in packets:
        _count(totals, traced)
        yield _line(traced)
        for change in traced.changed:
            yield f"        {change.field}: {_value(change.old)} -> {_value(change.new)}"
    yield (
        f"{totals['packets']} packets: {totals['mptcp']} with MPTCP, {totals['matched']} matched, "
        f"{totals['changed']} changed, {totals['drop']} dropped, {totals['redirect']} redirected"
    )


def _count(totals: Counter[str], traced: Traced) -> None:
    totals["packets"] += 1
    totals["mptcp"] += bool(traced.mptcp)
    totals["matched"] += bool(traced.result.matched)
    totals["changed"] += bool(traced.changed)
    totals[traced.result.verdict] += 1


def _line(traced: Traced) -> str:
    parts = [f"{traced.packet.n:>6}  {_who(traced)}"]
    if traced.mptcp:
        parts.append("[" + " ".join(subtype_name(number) for number in traced.mptcp) + "]")
    if traced.result.matched:
        parts.append("matched " + ", ".join(f"'{name}'" for name in traced.result.matched))
    parts.append(traced.result.verdict)
    if traced.result.reason:
        parts.append(f"(untouched: {traced.result.reason})")
    if traced.result.duration_ns is not None:
        parts.append(f"{traced.result.duration_ns} ns")
    return "  ".join(parts)


def subtype_name(number: int) -> str:
    """Return the name of an MPTCP option subtype, or its number when no RFC names it."""
    try:
        return Subtype(number).name
    except ValueError:
        return f"subtype {number}"


def _who(traced: Traced) -> str:
    taken = carried(traced.packet.link_type, traced.packet.data)
    found = decode(taken.packet, taken.link) if taken else None
    if found is None or found.ip is None:
        return f"{traced.packet.original_length} bytes"
    if found.tcp is None:
        return f"{found.ip.src} > {found.ip.dst}  {traced.packet.original_length} bytes"
    return _connection(found)


def _connection(found: Decoded) -> str:
    assert found.ip is not None
    assert found.tcp is not None
    flags = "".join(letter for flag, letter in _FLAGS.items() if found.tcp.flags & flag)
    source, target = (
        f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
        for address, port in ((found.ip.src, found.tcp.sport), (found.ip.dst, found.tcp.dport))
    )
    return f"{source} > {target}  {flags or 'none'}  len {len(found.payload)}"


def _value(value: str | None) -> str:
    if value is None:
        return "none"
    return value if len(value) <= _LONGEST else value[: _LONGEST - 3] + "..."
