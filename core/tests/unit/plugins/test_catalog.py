# SPDX-License-Identifier: Apache-2.0
"""Stages of a policy meet what plugins provide: names, types, ranges, and the bytes of a C struct."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from emptcp.errors import EmptcpError
from emptcp.plugins import state
from emptcp.plugins.catalog import BoundStage, Catalog
from emptcp.policy import model, when

# struct cap of the compiled object.
CAP = struct.Struct("=QIHBB16sI16sII3HH8s4x")


@pytest.fixture
def catalog(site: Any) -> Catalog:
    """Return the catalog of one enabled plugin."""
    site.add()
    state.enable("cap")
    return Catalog.of_enabled()


def bind(catalog: Catalog, text: str) -> BoundStage:
    """Bind an actor as a file says it; eth0 has ifindex 7."""
    return catalog.bind(when.parse_stage(text), devices={"eth0": 7}.__getitem__)


def test_values_become_python_values_and_bytes_of_the_struct(catalog: Catalog) -> None:
    bound = bind(
        catalog,
        "cap(10mbit, port=443, on=false, net=10.0.0.0/8, peer=fd00::1, kinds=[ack], device=eth0,"
        " ports=[80, 443], note='hello')",
    )
    assert bound.values == {
        "rate": 1_250_000,
        "wait": 20_000_000,
        "port": 443,
        "on": False,
        "net": ip_network("10.0.0.0/8"),
        "peer": ip_address("fd00::1"),
        "device": "eth0",
        "note": "hello",
        "ports": (80, 443),
        "kinds": ("ack",),
    }
    mapped = bytes(10) + b"\xff\xff\x0a\0\0\0"
    peer = b"\xfd" + bytes(14) + b"\x01"
    assert bound.packed == CAP.pack(
        1_250_000, 20_000, 443, 0, 0, mapped, 104, peer, 2, 7, 80, 443, 0, 2, b"hello\0\0\0"
    )


def test_what_is_left_out_is_its_default_or_zero(catalog: Catalog) -> None:
    bound = bind(catalog, "cap(10mbit)")
    assert bound.values == {"rate": 1_250_000, "wait": 20_000_000, "on": True}
    assert bound.packed == CAP.pack(1_250_000, 20_000, 0, 1, 0, b"", 0, b"", 0, 0, 0, 0, 0, 0, b"")


def test_values_without_a_name_go_to_parameters_in_order_and_the_last_takes_many(catalog: Catalog) -> None:
    bound = bind(catalog, "cap(10mbit, 1s, 80, true, 10.0.0.1, fd00::1, eth0, n, [1], syn, ack)")
    assert (bound.values["wait"], bound.values["kinds"]) == (10**9, ("syn", "ack"))


def test_a_bound_stage_is_written_out_in_full_and_binds_to_the_same(catalog: Catalog) -> None:
    bound = bind(catalog, "lbl: cap(10mbit, kinds=[ack, syn], ports=[1, 2], note='it\\'s')")
    assert bound.label == "lbl"
    again = bind(catalog, bound.text)
    assert (again.values, again.packed) == (bound.values, bound.packed)


def test_an_actor_knows_its_fragments_and_their_state(catalog: Catalog) -> None:
    found = catalog.actor("cap")
    assert (found.fragment.name, found.fragment.state_size) == ("cap", 8)
    assert [(hook, layout.name, layout.state_size) for hook, layout in found.companions] == [
        ("egress", "note_ack", 8)
    ]
    assert found.distribution == "someones-cap"
    assert catalog.selector("is_capped").fragment.parameter_size == 0


def test_a_name_may_always_be_qualified(catalog: Catalog) -> None:
    assert catalog.actor("someones-cap:cap") == catalog.actor("Someones_Cap:cap") == catalog.actor("cap")
    with pytest.raises(EmptcpError, match="no actor 'cap' from 'other'"):
        catalog.actor("other:cap")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cup(1mbit)", "column 1: there is no actor 'cup'\ndid you mean 'cap'?"),
        ("is_capped()", "'is_capped' is a selector, not an actor"),
        ("cap()", "column 1: actor 'cap' lacks its parameter 'rate'"),
        ("cap(1mbit, rte=5)", "column 12: actor 'cap' has no parameter 'rte'\ndid you mean 'rate'?"),
        ("cap(1mbit, rate=1mbit)", "column 12: actor 'cap': parameter 'rate' is given twice"),
        (
            "cap(10gbit)",
            "column 5: parameter 'rate' of actor 'cap': '10gbit' is out of range\nWrite 1mbit to 1gbit.",
        ),
        ("cap(5)", "column 5: parameter 'rate' of actor 'cap': '5' lacks its unit"),
        ("cap(1mbit, on=maybe)", "column 15: parameter 'on' of actor 'cap': 'maybe' is no bool"),
        ("cap([1mbit])", "a list is no rate"),
        ("cap(1mbit, kinds=sin)", "did you mean 'syn'?"),
        ("cap(1mbit, ports=[1,2,3,4])", "4 values are too many"),
        (
            "cap(1mbit, net=subflow @nets)",
            "column 16: parameter 'net' of actor 'cap': a prefix can't be read from a map",
        ),
        (
            "cap(1mbit, device=subflow @m)",
            "column 19: parameter 'device' of actor 'cap': a dev can't be read",
        ),
        ("cap(1mbit, wait=9999h)", "does not fit into 32 bits"),
    ],
)
def test_a_stage_that_is_wrong_is_told_at_its_place(catalog: Catalog, text: str, words: str) -> None:
    with pytest.raises(EmptcpError) as caught:
        bind(catalog, text)
    assert words in str(caught.value)
    assert caught.value.fix
    assert len(str(caught.value).splitlines()) <= 6


def test_too_many_values_are_told_at_the_first_that_is_too_much(site: Any) -> None:
    site.add()
    state.enable("cap")
    spec = when.parse_stage("is_capped(1, 2)", "selector")
    with pytest.raises(EmptcpError, match="selector 'is_capped' takes 0 values, not 2"):
        Catalog.of_enabled().bind(spec)


def test_a_device_that_is_not_there_is_told_with_the_parameter(catalog: Catalog) -> None:
    with pytest.raises(EmptcpError, match="parameter 'device' of actor 'cap': there is no device 'eth0'"):
        catalog.bind(when.parse_stage("cap(1mbit, device=eth0)"))


@pytest.mark.parametrize(
    ("prepare", "word", "fix"),
    [
        (lambda root: None, "found", "emptcp plugins enable cap"),
        (lambda root: state.disable("cap"), "disabled", "emptcp plugins enable cap"),
        (lambda root: (state.enable("cap"), (root / "hooks.py").write_text("")), "changed", "enable cap"),
    ],
)
def test_a_stage_of_a_plugin_that_may_not_be_used_says_whose_it_is(
    site: Any, prepare: Any, word: str, fix: str
) -> None:
    prepare(site.add())
    with pytest.raises(EmptcpError) as caught:
        Catalog.of_enabled().actor("cap")
    assert f"actor 'cap' comes from plugin 'cap', which is {word}" in str(caught.value)
    assert fix in caught.value.fix


def test_a_plugin_that_broke_after_it_was_enabled_says_so(site: Any) -> None:
    root = site.add(distribution="emptcp-actor-record")
    (root / "cap.bpf.o").write_bytes(b"junk")
    with pytest.raises(EmptcpError, match=r"the object cap.bpf.o can't be read"):
        Catalog.of_enabled().bind(when.parse_stage("cap(1mbit)"))


def test_a_name_that_two_enabled_plugins_provide_must_be_qualified(site: Any) -> None:
    site.add()
    state.enable("cap")
    site.add(distribution="emptcp-actor-record")
    catalog = Catalog.of_enabled()
    with pytest.raises(EmptcpError, match="is provided by emptcp-actor-record and someones-cap"):
        catalog.actor("cap")
    assert catalog.actor("someones-cap:cap").distribution == "someones-cap"


@pytest.mark.parametrize(
    ("written", "companions"),
    [
        ("record('packets')", []),
        ("record('rtt')", ["egress"]),
        ("record('rtt', 'bytes')", ["egress"]),
        ("rate_limit(rate=1mbit)", ["socket"]),
        ("rate_limit(rate=1mbit, mode=police)", []),
        ("rate_limit(rate=1mbit, mode=window, per=connection)", ["socket", "ingress", "egress"]),
        ("rate_limit(rate=1mbit, per=connection)", ["socket", "ingress", "egress"]),
    ],
)
def test_a_companion_is_wanted_where_the_values_ask_for_it(written: str, companions: list[str]) -> None:
    stage = Catalog.of_enabled().bind(when.parse_stage(written))
    assert [hook for hook, _ in stage.companions] == companions


def test_a_key_is_found_and_an_unknown_one_gets_a_hint(site: Any) -> None:
    site.add()
    with pytest.raises(EmptcpError) as caught:
        Catalog(state.judged()).key("cap_key")
    assert "key 'cap_key' comes from plugin 'cap', which is found" in str(caught.value)
    state.enable("cap")
    catalog = Catalog(state.judged())
    assert catalog.has_key("cap_key")
    assert not catalog.has_key("cap")
    assert catalog.key("cap_key").declaration.format.size == 8
    with pytest.raises(EmptcpError) as caught:
        catalog.key("cap_kee")
    assert str(caught.value) == "there is no key 'cap_kee'\ndid you mean 'cap_key'?"


def test_a_value_from_a_map_stays_open_until_the_packet_comes(catalog: Catalog) -> None:
    stage = bind(catalog, "cap(rate=subflow @rates, wait=30ms)")
    assert stage.values["rate"] == model.FromMap("subflow", "rates")
    assert stage.packed[:8] == bytes(8)
    assert stage.packed[8:12] == (30000).to_bytes(4, "little")
    assert stage.text.startswith("cap(rate=subflow @rates, wait=30ms")
