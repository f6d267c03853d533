# SPDX-License-Identifier: Apache-2.0
"""Which packets sequence matches, on both engines and back-ends, and against a plain model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emptcp.chain.bind import bind
from emptcp.chain.dryrun import Runner
from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss, MpCapable, MpJoinSyn
from emptcp.packet.tcp import Nop, Option, Timestamps
from emptcp.plugins.catalog import Catalog
from emptcp.policy.file import loads

pytestmark = pytest.mark.kernel

PLACES = [
    (engine, hook, backend)
    for engine in ("fused", "tail")
    for hook, backend in (("ingress", "xdp"), ("ingress", "tc"), ("egress", "tc"))
]
HEAD = (
    '[[policy]]\nname = "{name}"\nhook = "{hook}"\ndev = "x"\nwhen = "{when}"\ndo = ["record(\'packets\')"]\n'
)
IDSN = 2**64 - 500  # wraps around within the first packets
BACK_IDSN = 77
LOW = 2**32
Make = Callable[..., Runner]


@pytest.fixture(scope="module", params=PLACES, ids="-".join)
def where(request: pytest.FixtureRequest) -> tuple[str, str, str]:
    """Engine, hook and back-end."""
    engine, hook, backend = request.param
    return engine, hook, backend


def load(where: tuple[str, str, str], *whens: str) -> Runner:
    """Load policies, one for each expression."""
    engine, hook, backend = where
    policies = (HEAD.format(name=f"p{n}", hook=hook, when=when) for n, when in enumerate(whens))
    table = loads('table = "t"\n' + "".join(policies))
    bound = [bind(table, runner, hook, Catalog.of_enabled()) for runner in table.policies]
    return Runner(bound, hook, backend, engine=engine)


@pytest.fixture
def make(where: tuple[str, str, str]) -> Iterator[Make]:
    """Load policies until the test ends."""
    with ExitStack() as made:
        yield lambda *whens: made.enter_context(load(where, *whens))


def packet(*options: Option | bytes, back: bool = False, data: bytes = b"abcd", **rest: Any) -> bytes:
    if back:
        ends = ("fd00::2", "fd00::1") if rest.get("family") == 6 else ("10.0.0.2", "10.0.0.1")
        rest |= {"src": ends[0], "dst": ends[1], "sport": 5001, "dport": 40000}
    return build(options=options, payload=data, **rest)


def mapped(dsn: int, ssn: int, *, wide: bool = True, length: int = 4, **rest: Any) -> Dss:
    """A mapping whose number is cut to its width."""
    number = dsn % 2**64 if wide else dsn % LOW
    return Dss(data_ack=9, dsn=number, subflow_seq=ssn % LOW, data_length=length, wide_dsn=wide, **rest)


def handshake(version: int = 1, **shape: Any) -> list[bytes]:
    first = MpCapable(version=version, sender_key=None if version else 5)
    return [
        packet(first, flags="S", data=b"", **shape),
        packet(MpCapable(version=version, sender_key=6), flags="SA", data=b"", back=True, **shape),
        packet(MpCapable(version=version, sender_key=5, receiver_key=6), data=b"", **shape),
    ]


def matches(runner: Runner, *packets: bytes) -> list[bool | None]:
    """Whether each packet matches; None: the state is unknown. All packets pass as they are."""
    found: list[bool | None] = []
    for one in packets:
        result = runner.run(one)
        assert (result.verdict, result.data) == ("pass", one)
        assert result.reason in (None, "unknown_state")
        found.append(None if result.reason else bool(result.matched))
    return found


# Ranges of numbers on the wire, and which of the bytes 1, 5 and 599 they hold.
WIRE = {
    f"first={IDSN + 1}, last={IDSN + 4}, ": (True, False, False),
    f"first={IDSN + 2}, last={IDSN + 600 - 2**64}, ": (False, True, True),
    f"first={IDSN + 700 - 2**64}, ": (True, True, False),
    f"first={2**64 - 1}, last=0, ": (False, False, False),
    "last=100, ": (False, False, True),
    f"first=99, last={IDSN + 1}, ": (True, False, True),
    "": (True, True, True),
}


@pytest.mark.parametrize("wide", [True, False])
def test_numbers_on_the_wire_are_compared_around_their_end(make: Make, wide: bool) -> None:
    runner = make(*(f"sequence({ends}relative=false)" for ends in WIRE))
    if not wide:
        runner.run(packet(mapped(IDSN + 1, 1)))  # tells the upper half
    for n, byte in enumerate((1, 5, 599)):
        result = runner.run(packet(mapped(IDSN + byte, byte, wide=wide)))
        assert result.matched == tuple(f"p{at}" for at, held in enumerate(WIRE.values()) if held[n])


def test_a_number_of_four_bytes_without_any_of_eight_before_is_compared_by_its_lower_half(make: Make) -> None:
    runner = make(f"sequence(first={5 * LOW - 10}, last={5 * LOW + 10}, relative=false)")
    assert matches(runner, *(packet(mapped(n, 1, wide=False)) for n in (-11, -10, 0, 10, 11))) == [
        False, True, True, True, False,
    ]  # fmt: skip
    assert matches(runner, packet(mapped(5 * LOW, 1)), packet(mapped(7 * LOW, 1))) == [True, False]
    assert matches(runner, packet(mapped(5, 1, wide=False))) == [False]


@pytest.mark.parametrize(
    ("version", "shape"),
    [(0, {}), (1, {}), (1, {"family": 6}), (0, {"vlan": [7]}), (1, {"vlan": [7, 8], "family": 6})],
    ids=str,
)
def test_relative_numbers_count_from_the_first_byte_of_each_direction(
    make: Make, version: int, shape: dict[str, Any]
) -> None:
    runner = make("sequence(first=1, last=1000)")
    matches(runner, *handshake(version, **shape))
    there = [packet(mapped(IDSN + n, n), **shape) for n in (1, 5, 1000, 1001, 1)]
    back = [packet(mapped(BACK_IDSN + n, n), back=True, **shape) for n in (1, 1001, 999)]
    assert matches(runner, *there, *back) == [True, True, True, False, True, True, False, True]
    assert matches(runner, packet(mapped(IDSN + 700, 3, wide=False), **shape)) == [True]
    assert matches(runner, packet(mapped(IDSN + 1700, 3, wide=False), **shape)) == [False]


def test_the_first_data_of_version_1_is_number_1_and_tells_where_the_second_begins(make: Make) -> None:
    runner = make("sequence(first=1, last=1)", "sequence(last=100)", "sequence(space=ssn, last=1)")
    matches(runner, *handshake())
    first = packet(MpCapable(sender_key=5, receiver_key=6, data_length=100), data=bytes(100))
    found = [runner.run(one) for one in (first, packet(mapped(IDSN + 101, 101)), packet(mapped(IDSN + 9, 9)))]
    assert [one.matched for one in found] == [("p0", "p1", "p2"), (), ("p1",)]
    assert [one.reason for one in found] == [None, None, None]


def test_the_first_data_of_version_1_has_no_number_on_the_wire(make: Make) -> None:
    runner = make("sequence(relative=false)")
    first = packet(MpCapable(sender_key=5, receiver_key=6, data_length=4, checksum=1))
    assert matches(runner, *handshake(), first) == [False, False, False, None]


@pytest.mark.parametrize(
    "before",
    [
        [],
        [packet(mapped(IDSN + 5000, 5000))],
        [packet(MpJoinSyn(token=1, nonce=2), flags="S", data=b"")],
        [*handshake(), packet(mapped(IDSN + 400, 300))],
        [*handshake(), packet(Dss(dsn=IDSN + 400, data_length=1, data_fin=True), data=b"")],
    ],
    ids=["nothing", "data", "join", "gap", "end"],
)
def test_numbers_of_a_connection_whose_start_was_not_seen_are_unknown(
    make: Make, before: list[bytes]
) -> None:
    runner = make("sequence(first=1)", "not sequence(first=1)")
    for one in before:
        runner.run(one)
    last = packet(mapped(IDSN + 401, 301 if len(before) > 2 else 1))
    if not before:
        assert matches(runner, last) == [None]
    result = runner.run(last)
    assert (result.matched, result.reason) == (("p1",), "unknown_state")
    assert result.counts["t/p0/sequence"].reasons == {"unknown_state": 1}
    assert matches(runner, packet(Dss(data_ack=1), data=b"")) == [
        True
    ]  # by p1; no mapping is nothing unknown


def test_a_new_connection_of_the_same_ports_begins_anew(make: Make) -> None:
    runner = make("sequence(last=10)")
    for start in (IDSN, 123456):
        matches(runner, *handshake())
        assert matches(runner, packet(mapped(start + 1, 1)), packet(mapped(start + 11, 11))) == [True, False]


def test_a_connection_that_begins_with_four_bytes_goes_on_with_eight(make: Make) -> None:
    runner = make("sequence(first=1, last=1000)")
    matches(runner, *handshake())
    narrow = [packet(mapped(IDSN + n, n, wide=False)) for n in (1, 900, 1001)]
    wide = [packet(mapped(IDSN + n, n)) for n in (900, 1001, 1 + LOW)]
    assert matches(runner, *narrow, *wide) == [True, True, False, True, False, False]


def test_what_carries_no_mapping_does_not_match(make: Make) -> None:
    runner = make("sequence()", "sequence(space=ssn)")
    plain = [packet(Dss(data_ack=1), data=b""), packet(Timestamps(1, 2)), packet(Dss(), data=b"")]
    assert matches(runner, *handshake(), *plain) == [False] * 6
    cut = mapped(IDSN + 1, 1).encode()
    assert matches(runner, packet(cut[:1] + bytes([len(cut) - 1]) + cut[2:-1])) == [False]


def test_subflow_numbers_are_those_of_the_mapping(make: Make) -> None:
    runner = make(f"sequence(space=ssn, first={LOW - 2}, last=3)")
    numbers = (LOW - 3, LOW - 2, LOW - 1, 0, 3, 4)
    assert matches(runner, *(packet(mapped(1, n)) for n in numbers)) == [False, True, True, True, True, False]
    end = Dss(dsn=9, subflow_seq=0, data_length=1, data_fin=True)
    assert matches(runner, packet(end, data=b""), packet(mapped(1, 0, data_fin=True))) == [False, True]


def test_subflow_numbers_on_the_wire_are_those_of_tcp(make: Make) -> None:
    runner = make("sequence(space=ssn, first=4294967290, last=20, relative=false)")
    some = (4294967289, 4294967290, 0, 20, 21)
    assert matches(runner, *(packet(mapped(1, 1), seq=n) for n in some)) == [False, True, True, True, False]
    assert matches(runner, packet(Dss(data_ack=1), seq=7, data=b"", family=6)) == [True]


HOSTILE = b"\x1e\x14\x20\x0f" + bytes(16)  # a DSS, but in the payload


BLOCKS: list[list[Any]] = [
    [Timestamps(1, 2), mapped(IDSN + 1, 1, checksum=3)],
    [Nop(), mapped(IDSN + 1, 1, wide=False), Nop(), Nop()],
    [Nop(), Nop(), Nop(), mapped(IDSN + 1, 1), Nop()],
    [bytes([253, 5]) + b"\x1e\x1e\x14", mapped(IDSN + 1, 1), Nop(), Nop(), Nop()],
    [Dss(dsn=5, subflow_seq=5, data_length=4), mapped(IDSN + 1, 1, wide=False)],  # the last one counts
]


def test_the_option_is_found_wherever_it_lies(make: Make) -> None:
    runner = make("sequence(last=10)", "sequence(space=ssn, last=1)")
    for block in BLOCKS:
        matches(runner, *handshake())
        for data in (HOSTILE, HOSTILE * 50):
            result = runner.run(packet(*block, data=data))
            assert (result.matched, result.reason) == (("p0", "p1"), None)


def test_a_merged_packet_is_compared_by_its_first_byte(policy: Callable[..., Any]) -> None:
    merged = (3).to_bytes(4, "little") + bytes(8) + (100).to_bytes(4, "little")  # gso_segs, gso_size
    context = bytes(164) + merged + bytes(192 - 164 - len(merged))  # struct __sk_buff
    runner = policy("record('packets')", when="sequence(last=100)", hook="egress")
    matches(runner, *handshake())
    packets = [packet(mapped(IDSN + n, n, length=300), data=bytes(300)) for n in (1, 301)]
    assert [bool(runner.run(one, ctx=context).matched) for one in packets] == [True, False]


# Selectors, and the range of each. The first two are of relative numbers.
RANGES = {
    f"sequence(first=100, last={LOW})": (100, LOW),
    f"sequence(first={2 * LOW}, last={LOW // 2})": (2 * LOW, LOW // 2),
    f"sequence(first={2**64 - LOW}, last=9, relative=false)": (2**64 - LOW, 9),
    f"sequence(first={LOW - 100}, last={LOW + 100}, relative=false)": (LOW - 100, LOW + 100),
}


@pytest.fixture(scope="module")
def ranges(where: tuple[str, str, str]) -> Iterator[Runner]:
    with load(where, *RANGES) as runner:
        yield runner


def holds(ends: tuple[int, int], number: int, bits: int = 64) -> bool:
    """Whether one of the numbers that end in these bits is in the range."""
    first, last = ends
    return (number - first) % 2**bits <= (last - first) % 2**64


def expected(dsn: int, start: int | None, whole: bool) -> list[bool | None]:
    """What the selectors say of a mapping whose true number is `dsn`, by what is known at that time."""
    said: list[bool | None] = []
    for when, ends in RANGES.items():
        if "relative" in when:
            said.append(holds(ends, dsn) if whole else holds(ends, dsn % LOW, 32))
        else:
            said.append(None if start is None else holds(ends, (dsn - start) % 2**64))
    return said


# Direction, bytes from the mapping before, width of the number.
STEP = st.tuples(st.booleans(), st.integers(-(2**30), 2**31 - 1) | st.integers(0, 3), st.booleans())


@settings(max_examples=25, deadline=None)
@given(
    idsn=st.integers(0, 2**64 - 1) | st.integers(2**64 - LOW, 2**64 - 1) | st.integers(0, LOW),
    joins=st.booleans(),
    begins=st.booleans(),
    steps=st.lists(STEP, min_size=1, max_size=8),
)
def test_it_agrees_with_a_model_that_knows_the_true_numbers(
    ranges: Runner, idsn: int, joins: bool, begins: bool, steps: list[tuple[bool, int, bool]]
) -> None:
    for one in [packet(MpJoinSyn(token=1, nonce=2), flags="S", data=b"")] if joins else handshake():
        ranges.run(one)
    places, starts, whole = [0 if begins else 7, 0], [False, False], [False, False]
    for back, bytes_on, wide in steps:
        at = places[back] = max(0, places[back] + bytes_on * starts[back])
        starts[back] |= at == 0 and not joins
        whole[back] |= wide
        if not starts[back] and at:
            at = places[back] = at + 1  # never the start
        dsn = (idsn + 1 + at) % 2**64
        result = ranges.run(packet(mapped(dsn, at + 1, wide=wide), back=back))
        said = [
            None if result.counts[f"t/p{n}/sequence"].reasons else f"p{n}" in result.matched for n in range(4)
        ]
        assert said == expected(dsn, idsn if starts[back] else None, whole[back])
