# SPDX-License-Identifier: Apache-2.0
"""The metrics that follow from what was kept of a subflow, and of the subflows of a connection together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from emptcp_actor_record.tracks import Known, Slot, Track, Way, What

_MICROSECOND = 1e-6
_NANOSECOND = 1e-9

Metrics = Iterator[tuple[str, float]]


@dataclass(frozen=True)
class Kept:
    """A subflow: its slot, its entry in the plugin's map, and which of its ends is the first."""

    slot: Slot
    track: Track | None
    first: int = 0

    def way(self, end: int) -> Way | None:
        """What an end sent, ``None`` where nothing but the slot is kept."""
        return self.track.ways[self.first ^ end] if self.track is not None else None

    def asked(self, what: What) -> bool:
        """Whether a stage asked for it."""
        return self.track is not None and bool(self.track.asked & what)


def of_subflow(kept: Kept) -> dict[str, float]:
    """Return a subflow's metrics; what was not asked for or not seen yet is left out."""
    return dict([*_together([kept]), *_windows_now(kept), *_goodput_of_subflow(kept)])


def of_connection(subflows: Sequence[Kept]) -> dict[str, float]:
    """Return the metrics of all subflows of a connection together.

    Counts are sums, least and greatest values are those of all. Goodput is how far the data sequence numbers
    went, whatever subflow they went by: data that was sent on two of them counts once.
    """
    return dict([*_together(subflows), *_goodput_of_connection(subflows)])


def _together(subflows: Sequence[Kept]) -> Metrics:
    yield from _counts(subflows)
    yield from _rtt([kept.slot for kept in subflows if kept.slot.rtt_samples])
    yield from _rtt_histogram(subflows)
    yield from _by_sequence(subflows)
    yield from _windows(subflows)


def _counts(subflows: Sequence[Kept]) -> Metrics:
    for name, field in (("packets", "packets"), ("bytes", "volume")):
        for end in (0, 1):
            if count := sum(getattr(kept.slot, field)[kept.first ^ end] for kept in subflows):
                yield f"{name}_{end}", count


def _rtt(slots: Sequence[Slot]) -> Metrics:
    if not slots:
        return
    yield "rtt_min", min(slot.rtt_min for slot in slots) * _MICROSECOND
    if len(slots) == 1:
        yield "rtt_last", slots[0].rtt_last * _MICROSECOND
    samples = sum(slot.rtt_samples for slot in slots)
    yield "rtt_mean", sum(slot.rtt_sum for slot in slots) / samples * _MICROSECOND


def _rtt_histogram(subflows: Sequence[Kept]) -> Metrics:
    tracks = [kept.track for kept in subflows if kept.track is not None]
    *below, above = [sum(counts) for counts in zip(*(track.rtts for track in tracks), strict=True)] or [0]
    for place, count in enumerate(below):
        if count:
            yield f"rtts_below_{_edge(place)}", count
    if above:
        yield f"rtts_above_{_edge(len(below) - 1)}", above


def _edge(place: int) -> str:
    """Return 128 << place microseconds, rounded down to whole units: 256us, 8ms, 2s."""
    edge = 128 << place
    for unit, size in (("s", 1_000_000), ("ms", 1000)):
        if edge >= size:
            return f"{edge // size}{unit}"
    return f"{edge}us"


def _by_sequence(subflows: Sequence[Kept]) -> Metrics:
    for end in (0, 1):
        for what, names in _BY_SEQUENCE.items():
            ways = [way for kept in subflows if kept.asked(what) and (way := kept.way(end))]
            begun = [way for way in ways if way.known & Known.BEGUN]
            for name, field, join in names if begun else ():
                yield f"{name}_{end}", join(getattr(way, field) for way in begun)


_BY_SEQUENCE = {
    What.RETRANSMISSIONS: (("retransmitted", "retransmitted", sum),),
    What.REORDERING: (("reordered", "reordered", sum), ("reordering_extent", "extent", max)),
    What.SIZE: (("size", "size", sum),),
}


def _offered(subflows: Sequence[Kept], end: int) -> list[Way]:
    ways = [way for kept in subflows if (way := kept.way(end))]
    return [way for way in ways if way.known & Known.OFFERED]


def _windows(subflows: Sequence[Kept]) -> Metrics:
    for end in (0, 1):
        if ways := _offered(subflows, end):
            yield f"window_min_{end}", min(way.window_min for way in ways)
            yield f"window_max_{end}", max(way.window_max for way in ways)


def _windows_now(kept: Kept) -> Metrics:
    for end in (0, 1):
        for way in _offered([kept], end):
            yield f"window_last_{end}", way.window_last


def _goodput_of_subflow(kept: Kept) -> Metrics:
    for end in (0, 1):
        way = kept.way(end)
        if way is not None and way.goodput:
            yield from _goodput(end, way.goodput, [way])


def _goodput_of_connection(subflows: Sequence[Kept]) -> Metrics:
    for end in (0, 1):
        ways = [way for kept in subflows if (way := kept.way(end)) and way.goodput]
        count = _advance(ways)
        if count:
            yield from _goodput(end, count, ways)


def _advance(ways: Sequence[Way]) -> int:
    """Return from the first to the last data sequence number, 0 when they can't be compared."""
    mapped = [way for way in ways if way.known & Known.MAPPED]
    if not mapped:
        return max((way.lead for way in ways), default=0)
    if len(mapped) > 1 and not all(way.known & Known.WIDE for way in mapped):
        return 0  # of numbers of 4 bytes nobody knows how often they went around on the other subflow
    start = mapped[0].dsn_first
    return max(_apart(way.dsn_next, start) for way in mapped) - min(
        _apart(way.dsn_first, start) for way in mapped
    )


def _apart(one: int, other: int) -> int:
    """Return the distance of two numbers of 64 bits, which may have gone around between them."""
    return (one - other + (1 << 63)) % (1 << 64) - (1 << 63)


def _goodput(end: int, count: int, ways: Sequence[Way]) -> Metrics:
    yield f"goodput_bytes_{end}", count
    duration = max(way.last_at for way in ways) - min(way.first_at for way in ways)
    if duration:
        yield f"goodput_{end}", count / (duration * _NANOSECOND)
