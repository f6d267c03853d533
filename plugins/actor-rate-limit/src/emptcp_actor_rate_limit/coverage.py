# SPDX-License-Identifier: Apache-2.0
"""Which connections a rate_limit stage can't limit, and why: what `emptcp list` tells under it."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

from emptcp.api import Change, Endpoint, Snapshot, Subflow, devices, passing_frames
from emptcp_actor_rate_limit import parted
from emptcp_actor_rate_limit.values import CONNECTION, PACING, WINDOW, our_end, way_of

# struct rate_limit_state: wanted and paced by end, what was missed by end
_STATE = struct.Struct("=2I2I8x8x4x2B")
_NOT_OURS, _RTT_UNKNOWN, _SCALE_UNKNOWN = 1, 2, 3
_NAMED = 3

_SOCKET_ELSEWHERE = "the socket is on another host or in another namespace"
_SOCKET_REFUSES = "the socket has another pacing rate than is wanted"
_OTHERS_PASS = "other subflows don't pass this policy, and the sender takes their window"
_NOT_SEEN_YET = (
    "other subflows don't pass this policy, which nobody has seen yet: windows are lowered until "
    "`emptcp apply` looks, or `emptcp run`"
)
_NOT_AGAIN_YET = (
    "all subflows pass this policy again, which nobody has seen yet: windows are left alone until "
    "`emptcp apply` looks, or `emptcp run`"
)
_OLDER = {
    _RTT_UNKNOWN: "older than this policy, and the round-trip time is not known here",
    _SCALE_UNKNOWN: "older than this policy, and the window's scale is not known here",
}


def notes(changes: Sequence[Change]) -> list[str]:
    """Return a line for each reason for which connections or subflows are not covered by a stage."""
    way = way_of(changes[0].value("mode"), changes[0].value("per"))
    if way not in (PACING, WINDOW):
        return []  # they cover all that they see
    with Snapshot() as reader:
        if way == PACING:
            return list(_not_paced([one for one in changes if one.hook == "egress"], reader))
        return list(_not_windowed(changes, reader))


def _not_paced(changes: Sequence[Change], reader: Snapshot) -> Iterator[str]:
    chosen = parted.selected(changes, "egress", reader)
    refused = [one for one in chosen if _refuses(changes[0], one)]
    yield from _line("connections", _tokens(refused), _SOCKET_REFUSES)
    yield from _line("subflows", _passing(changes, {_NOT_OURS}, chosen), _SOCKET_ELSEWHERE)


def _refuses(change: Change, subflow: Subflow) -> bool:
    """Return whether a rate is wanted for the subflow, and its socket has another one."""
    state = change.flows.get(*_ends(subflow)) if change.flows is not None else None
    if state is None:
        return False
    values = _STATE.unpack_from(state)
    wanted, paced = values[our_end(subflow)], values[2 + our_end(subflow)]
    return bool(wanted) and wanted != paced


def _not_windowed(changes: Sequence[Change], reader: Snapshot) -> Iterator[str]:
    if changes[0].value("per") == CONNECTION:
        yield from _parted(changes, reader)
    for hook in sorted({one.hook for one in changes}):
        places = [one for one in changes if one.hook == hook]
        for missed, reason in _OLDER.items():
            yield from _line("subflows", _passing(places, {missed}, ()), reason)


def _parted(changes: Sequence[Change], reader: Snapshot) -> Iterator[str]:
    """Tell of connections of which some subflows pass, and of marks that are old by now."""
    wanted, there = parted.wanted(changes, reader), parted.marked(changes[0])
    open_now = _tokens(reader.read(changes[0].namespace))
    not_yet = {token for mark, token in wanted.items() if mark not in there}
    not_again = {token for mark, token in there.items() if mark not in wanted} & open_now
    yield from _line("connections", {*wanted.values()} - not_yet, _OTHERS_PASS)
    yield from _line("connections", not_yet, _NOT_SEEN_YET)
    yield from _line("connections", not_again - {*wanted.values()}, _NOT_AGAIN_YET)


def _passing(changes: Sequence[Change], missed: set[int], but: Iterable[Subflow]) -> list[str]:
    """Return the subflows that the policy selects and of which packets were missed, as ``from > to``."""
    ours = {frozenset(_ends(one)) for one in but}
    found: dict[str, None] = {}
    for change in changes:
        known = [one for one in devices.list_devices(change.namespace) if one.name in change.devices]
        for ends, state in change.flows.items() if change.flows is not None else ():
            reasons = _STATE.unpack_from(state)[4:]
            for end in (0, 1):
                if reasons[end] not in missed or frozenset(ends) in ours:
                    continue
                source, target = ends[end], ends[1 - end]
                frames = (frame for device in known for frame in passing_frames(source, target, device))
                if any(change.matches(frame) for frame in frames):
                    found[f"{_endpoint(source)} > {_endpoint(target)}"] = None
    return list(found)


def _line(what: str, which: Iterable[str | int], reason: str) -> Iterator[str]:
    """Yield a line that says how many, some of them by name, and why."""
    named = sorted({f"{one:08x}" if isinstance(one, int) else one for one in which})
    if named:
        more = f", {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        shown = ", ".join(named[:_NAMED]) + more
        what = what if len(named) > 1 else what.removesuffix("s")
        yield f"not covered: {len(named)} {what} ({shown}): {reason}"


def _tokens(subflows: Iterable[Subflow]) -> set[int]:
    return {one.token for one in subflows}


def _ends(subflow: Subflow) -> tuple[Endpoint, Endpoint]:
    return (subflow.local, subflow.local_port), (subflow.remote, subflow.remote_port)


def _endpoint(end: Endpoint) -> str:
    address, port = end
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
