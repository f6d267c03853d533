# SPDX-License-Identifier: Apache-2.0
"""The Python API gives what the file gives."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from emptcp.errors import EmptcpError
from emptcp.policy import build, file, model
from emptcp.policy.build import (
    A,
    B,
    Both,
    C,
    Controller,
    Goto,
    Ingress,
    Map,
    PacketType,
    Path,
    Policy,
    RateLimit,
    Record,
    Set,
    SetBackup,
    Subflow,
    Table,
)

SAID_IN_TOML = """
table = "home"
guard_window = "1min"
[[policy]]
name = "first"
hook = "ingress"
dev = ["wwan*", "usb0"]
when = "subflow in @bulk and not packet_type('syn', types=[ack, data])"
do = ["slow: record('rtt', 'bytes')", "set_backup(True)", "goto lane"]
[[policy]]
name = "second"
hook = ["ingress", "egress"]
dev = "eth0"
netns = 42
backend = "tc"
when = "a or (b and c) or subflow(saddr=10.0.0.0/8, dport=443)"
do = "rate_limit(rate=subflow @rates)"
[chain.lane]
do = ["record(packets)"]
[set.bulk]
key = "subflow"
timeout = "5s"
[map.rates]
key = "subflow"
type = "rate"
entries = { x = "10mbit" }
[path.p]
dev = "eth0"
[[controller]]
name = "c"
use = "ecf"
paths = ["p"]
when = "a"
with = { gain = "5%", order = ["x", "y"] }
"""


def said_in_python() -> model.Table:
    """Return the same in Python."""
    return Table(
        "home",
        [
            Policy(
                "first",
                Ingress("wwan*", "usb0"),
                Subflow.isin("bulk") & ~PacketType("syn", types=["ack", "data"]),
                [Record("rtt", "bytes").label("slow"), SetBackup(True), Goto("lane")],
            ),
            Policy(
                "second",
                Both("eth0"),
                A() | (B() & C()) | Subflow(saddr=ip_network("10.0.0.0/8"), dport=443),
                RateLimit(rate=Subflow.value_in("rates")),
                netns=42,
                backend="tc",
            ),
        ],
        chains={"lane": [Record("packets")]},
        sets=[Set("bulk", "subflow", timeout="5s")],
        maps=[Map("rates", "subflow", "rate", entries={"x": "10mbit"})],
        paths=[Path("p", devices=("eth0",))],
        controllers=[Controller("c", "ecf", paths=["p"], when=A(), gain="5%", order=["x", "y"])],
        guard_window="1min",
    )


def test_both_ways_to_say_it_give_the_same_model() -> None:
    assert said_in_python() == file.loads(SAID_IN_TOML)


def test_names_in_camel_case_are_those_of_the_file() -> None:
    assert (build.IpPair.name, build.NoMptcp.name, build.CapWindow2.name) == (
        "ip_pair",
        "no_mptcp",
        "cap_window2",
    )


def test_other_names_are_not_offered() -> None:
    with pytest.raises(AttributeError, match="no attribute 'set_backup'"):
        _ = build.set_backup


def test_pythons_own_and_is_refused_since_it_would_drop_a_selector() -> None:
    with pytest.raises(EmptcpError, match="Write & for and"):
        bool(A() and B())


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        (lambda: Policy("p", Ingress("eth0"), None, []), "'do' of policy 'p' is empty"),
        (lambda: Policy("p", Ingress(), None, A()), "names no device"),
        (lambda: Policy("p", Ingress("a/b"), None, A()), "can't be the name of a device"),
        (lambda: Policy("p", Ingress("x"), Subflow.isin("nope"), A()), "no set 'nope'"),
        (lambda: Policy("p", Ingress("x"), A().label("not"), A()), "'not' can't be a name"),
        (lambda: Policy("p", Ingress("x"), A(**{"b c": 1}), A()), "'b c' can't be a name"),
        (
            lambda: Policy("p", Ingress("x"), None, A(), backend="xpd"),
            "'backend' of policy 'p' can't be 'xpd'",
        ),
        (lambda: Policy("p", Ingress("x"), None, [Goto("lane")]), "no chain 'lane'"),
        (lambda: Policy("p", Ingress("x"), None, ["record"]), "is no actor"),  # type: ignore[list-item]
        (lambda: Policy("p", Ingress("x"), A(0.5), A()), "0.5"),
        (lambda: Policy("p", Ingress("x"), A(None), A()), "None"),
    ],
)
def test_what_the_file_refuses_python_refuses(policy: Any, sentence: str) -> None:
    with pytest.raises(EmptcpError) as caught:
        Table("t", [policy()])
    assert sentence in str(caught.value)


def test_the_nesting_limit_holds_in_python_too() -> None:
    deep = A()
    for _ in range(65):
        deep = ~deep
    with pytest.raises(EmptcpError, match="nested over 64 deep"):
        Table("t", [Policy("p", Ingress("x"), deep, A())])


def test_two_policies_of_one_name_are_refused() -> None:
    with pytest.raises(EmptcpError, match="policy 'p' is there twice"):
        Table("t", [Policy("p", Ingress("x"), None, A())] * 2)
