# SPDX-License-Identifier: Apache-2.0
"""option: which packets it matches, against a plain model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emptcp.errors import EmptcpError
from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss, MpPrio
from emptcp.packet.tcp import Nop, Option, Other, Timestamps
from emptcp.plugins.catalog import Catalog
from emptcp.plugins.manager import Manager
from emptcp.policy.file import loads

pytestmark = pytest.mark.kernel

V6 = {"family": 6, "src": "fd00::1", "dst": "fd00::2"}
MINE = Other(253, b"\xe0\xe1\x07")
DSS = Dss(data_ack=1)
HOSTILE = b"\xfd\x05\xe0\xe1\x07" * 4


def matches(runner: Any, packet: bytes) -> bool:
    result = runner.run(packet)
    assert (result.verdict, result.data) == ("pass", packet)
    return bool(result.matched)


@pytest.mark.parametrize(
    ("when", "found"),
    [
        ("option()", True),
        ("option(kind=254)", False),
        ("option(exid=0xe0e1)", True),
        ("option(exid=0xe0e2)", False),
        ("option(exid=0xe0e1, value=7, size=1)", True),
        ("option(exid=0xe0e1, value=6, size=1)", False),
        ("option(exid=0xe0e1, value=7, size=2)", False),
        ("option(value=0xe0e107, size=3)", True),
        ("option(kind=8)", True),
        ("option(kind=8, value=0x01020304, size=4)", True),
        ("option(kind=2)", False),
    ],
)
@pytest.mark.parametrize(
    "shape",
    [{}, V6, {"vlan": [7, 8]}, {"payload": HOSTILE}],
    ids=["ipv4", "ipv6", "two tags", "hostile payload"],
)
def test_kind_identifier_and_value_must_be_there(
    policy: Callable[..., Any], shape: dict[str, Any], when: str, found: bool
) -> None:
    runner = policy("record('packets')", when=when)
    time = Timestamps(0x01020304, 9)
    for options in ([DSS, MINE, time], [Nop(), time, Nop(), MINE, Nop(), Nop(), DSS, Nop()]):
        assert matches(runner, build(**shape, options=options)) == found
    assert not matches(runner, build(**shape, options=[DSS]))


def test_what_stands_behind_the_options_is_none(policy: Callable[..., Any]) -> None:
    runner = policy("record('packets')", when="option()")
    whole = [DSS, Nop(), Dss(data_ack=1, dsn=2, data_length=len(HOSTILE))]
    assert not matches(runner, build(options=whole, payload=HOSTILE))
    assert not matches(runner, build(options=[DSS, bytes([0, 253, 5, 0xE0, 0xE1, 7, 0, 0])]))
    assert not matches(runner, build(options=[DSS, bytes([99, 1, 253, 5, 0xE0, 0xE1, 7, 0])]))


OPTIONS = st.one_of(
    st.just(Nop()),
    st.builds(
        Other,
        st.sampled_from([253, 254, 200]),
        st.binary(max_size=6).map(lambda data: data and b"\xe0\xe1"[: len(data)] + data[2:]),
    ),
    st.just(MpPrio(backup=True)),
)


def test_it_agrees_with_a_plain_model(policy: Callable[..., Any]) -> None:
    pairs = [(kind, exid) for kind in (253, 254) for exid in (0, 0xE0E1, 0xE0E2)]
    policies = [policy("record('packets')", when=f"option(kind={kind}, exid={exid})") for kind, exid in pairs]

    @settings(max_examples=60, deadline=None)
    @given(options=st.lists(OPTIONS, max_size=3))  # 36 bytes at most
    def agrees(options: list[Option]) -> None:
        packet = build(options=[DSS, *options])
        known = [(one.kind, one.value[:2]) for one in options if isinstance(one, Other)]
        for runner, (kind, exid) in zip(policies, pairs, strict=True):
            found = any(k == kind and (not exid or v == exid.to_bytes(2, "big")) for k, v in known)
            assert matches(runner, packet) == found

    agrees()


VALUED = st.builds(
    Other,
    st.sampled_from([253, 254, 200]),
    st.builds(
        bytes.__add__,
        st.sampled_from([b"\xe0\xe1", b"\xe0", b""]),
        st.one_of(st.binary(max_size=5), st.sampled_from([b"\x07", b"\0\x07\0", b"\x01\x02\x03\x04\x05"])),
    ),
)
WANTED = [
    (253, 0xE0E1, 7, 1),
    (253, 0, 0xE0E107, 3),
    (254, 0xE0E1, 0x01020304, 4),
    (200, 0, 7, 2),
    (254, 0, 0, 1),
]


def is_there(options: list[Option], kind: int, exid: int, value: int, size: int) -> bool:
    """The first option of the kind and identifier tells; there may be more of its value than is compared."""
    known = [one.encode() for one in options if not isinstance(one, Nop)]
    for raw in known:
        if raw[0] == kind and (not exid or raw[2:4] == exid.to_bytes(2, "big")):
            found = raw[4 if exid else 2 :][:size]
            return found == value.to_bytes(size, "big")
    return False


def test_values_agree_with_a_plain_model(policy: Callable[..., Any]) -> None:
    texts = [f"option(kind={kind}, exid={e}, value={value}, size={size})" for kind, e, value, size in WANTED]
    policies = [policy("record('packets')", when=text) for text in texts]

    @settings(max_examples=150, deadline=None)
    @given(options=st.lists(st.one_of(VALUED, st.just(Nop())), min_size=1, max_size=3))
    def agrees(options: list[Option]) -> None:
        packet = build(options=[DSS, *options])
        seen = [matches(runner, packet) for runner in policies]
        assert seen == [is_there(options, *wanted) for wanted in WANTED]

    agrees()


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("option(kind=8, exid=1)", "options of kind 8 have no ExID"),
        ("option(exid=1, value=256, size=1)", "the value 0x100 of an option has more than 1 bytes"),
    ],
)
def test_what_does_not_go_together_is_refused(stage: str, said: str) -> None:
    text = (
        f'table = "t"\n[[policy]]\nname = "p"\nhook = "ingress"\ndev = "x"\nwhen = "{stage}"\ndo = ["drop"]'
    )
    (runner,) = loads(text).policies
    bound = Catalog.of_enabled().bind(runner.when.stage)  # type: ignore[union-attr]
    with pytest.raises(EmptcpError, match=said):
        Manager.of_enabled().validate(bound, runner)
