# SPDX-License-Identifier: Apache-2.0
"""Which packets connection matches, packet by packet: what shows the keys, what joins, on both engines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emptcp import pybpf
from emptcp.chain import flows
from emptcp.chain.bind import bind
from emptcp.chain.connections import Connections
from emptcp.chain.dryrun import Runner
from emptcp.control.duty import decode
from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss, MpCapable, MpJoinSyn
from emptcp.plugins.catalog import Catalog
from emptcp.policy.file import loads

pytestmark = pytest.mark.kernel

PLACES = [
    (engine, hook, backend)
    for engine in ("fused", "tail")
    for hook, backend in (("ingress", "xdp"), ("ingress", "tc"), ("egress", "tc"))
]
SET = '[set.chosen]\nkey = "connection"\n'
CLIENT, SERVER = 0x0123456789ABCDEF, 0xFEDCBA9876543210
V4 = {"src": "10.0.0.1", "dst": "10.0.0.2"}
V6 = {"family": 6, "src": "fd00::2", "dst": "fd00::1"}
SHAPES = [V4, V6, V4 | {"vlan": [7]}]


def token(key: int, version: int = 1) -> int:
    """The token as RFC 6824 (version 0) and RFC 8684 say it."""
    hashed = (hashlib.sha256 if version else hashlib.sha1)(key.to_bytes(8, "big"))
    return int.from_bytes(hashed.digest()[:4], "big")


class Host:
    """A runner with what `emptcp run` does for it, when it is told to."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.maps = runner.shared.cores()

    def answer(self) -> int:
        """Work out the tokens of the connections that were told of; return how many those were."""
        told: list[Any] = []

        def hear(record: bytes) -> None:
            event = decode(record, {"core_connection": "core"})
            assert event is not None
            assert not event.data
            told.append(event)

        with pybpf.RingBuffer(self.maps["emptcp_events"](), hear) as ring:
            ring.poll(0)
        with Connections(self.maps["emptcp_flows"](), self.maps["emptcp_connections"]()) as known:
            for event in told:
                known.see_keys(flows.key(*event.endpoints))
        return len(told)

    def matches(self, packet: bytes) -> bool:
        result = self.runner.run(packet)
        assert (result.verdict, result.data) == ("pass", packet)
        return bool(result.matched)


@pytest.fixture(scope="module", params=PLACES, ids="-".join)
def make(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Host]]:
    """Make a policy, once for each expression: what passed it before is still in its flow table."""
    engine, hook, backend = request.param
    with ExitStack() as made:

        @cache
        def host(when: str) -> Host:
            head = f'table = "t"\n[[policy]]\nname = "p"\nhook = "{hook}"\ndev = "x"\nwhen = "{when}"\n'
            table = loads(f"{head}do = [\"record('packets')\"]\n{SET if '@' in when else ''}")
            bound = bind(table, table.policies[0], hook, Catalog.of_enabled())
            return Host(made.enter_context(Runner([bound], hook, backend, engine=engine)))

        yield host


def there(shape: dict[str, Any], sport: int, **rest: Any) -> bytes:
    return build(**shape, sport=sport, dport=443, **rest)


def back(shape: dict[str, Any], sport: int, **rest: Any) -> bytes:
    ends = {"src": shape["dst"], "dst": shape["src"], "sport": 443, "dport": sport}
    return build(**(shape | ends), **rest)


def handshake(
    shape: dict[str, Any], sport: int, version: int, client: int = CLIENT, server: int = SERVER
) -> list[bytes]:
    syn = MpCapable(version=version, sender_key=None if version else client)
    last = MpCapable(version=version, sender_key=client, receiver_key=server)
    return [
        there(shape, sport, flags="S", options=[syn]),
        back(shape, sport, flags="SA", options=[MpCapable(version=version, sender_key=server)]),
        there(shape, sport, options=[last]),
    ]


DATA: dict[str, Any] = {"options": [Dss(data_ack=1)]}


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=["ipv4", "ipv6", "vlan"])
def test_all_subflows_match_once_the_keys_were_worked_out(
    make: Callable[[str], Host], shape: dict[str, Any], version: int
) -> None:
    for key, joined in ((CLIENT, SERVER), (SERVER, SERVER), (SERVER, CLIENT)):
        host = make(f"connection(token={token(key, version)})")
        assert not any(map(host.matches, handshake(shape, 5000, version)))
        assert not host.matches(there(shape, 5000, **DATA))
        assert host.answer() == 1
        assert host.matches(there(shape, 5000, **DATA))
        assert host.matches(back(shape, 5000, **DATA))
        # Either end may open a subflow, and names the other's token.
        joins = [MpJoinSyn(token(joined, version), 7, 1)]
        opens, answers = (there, back) if joined == SERVER else (back, there)
        assert host.matches(opens(shape, 5001, flags="S", options=joins))
        assert host.matches(answers(shape, 5001, **DATA))
        assert host.matches(opens(shape, 5001, **DATA))
        other = [MpJoinSyn(token(key, version) ^ 1, 7, 1)]
        assert not host.matches(opens(shape, 5002, flags="S", options=other))
        assert not host.matches(there(shape, 5002, **DATA))
        assert not host.answer()


def test_a_join_that_outruns_the_answer_matches_from_then_on(make: Callable[[str], Host]) -> None:
    client, server = CLIENT + 1, SERVER + 1
    host = make(f"connection(token={token(client)})")
    for packet in handshake(V4, 5000, 1, client, server):
        assert not host.matches(packet)
    join = [MpJoinSyn(token(server), 7, 1)]
    assert not host.matches(there(V4, 5001, flags="S", options=join))
    host.answer()
    assert host.matches(back(V4, 5001, **DATA))


def test_a_port_that_is_used_again_is_another_connection(make: Callable[[str], Host]) -> None:
    host = make(f"connection(token={token(CLIENT)})")
    for packet in handshake(V4, 5000, 1):
        host.matches(packet)
    host.answer()
    assert host.matches(there(V4, 5000, **DATA))
    assert not host.matches(there(V4, 5000, flags="S", options=[MpCapable(version=1)]))
    assert not host.matches(there(V4, 5000, **DATA))


def test_the_key_is_the_token_of_the_end_on_this_side(
    make: Callable[[str], Host], request: pytest.FixtureRequest
) -> None:
    host = make("connection in @chosen")
    chosen = host.runner.store("set", "chosen")
    for packet in handshake(V4, 5000, 1):
        assert not host.matches(packet)
    host.answer()
    assert not host.matches(there(V4, 5000, **DATA))
    chosen.update(token(CLIENT).to_bytes(4, "little"), bytes(chosen.info.value_size))
    # The client is on this side of what it sends at egress, and of what it is sent at ingress.
    hook = request.node.callspec.params["make"][1]
    assert host.matches(there(V4, 5000, **DATA)) == (hook == "egress")
    assert host.matches(back(V4, 5000, **DATA)) == (hook == "ingress")


def test_keys_that_change_within_a_handshake_tell_nothing(make: Callable[[str], Host]) -> None:
    host = make(f"connection(token={token(CLIENT)})")
    syn, answer, _ = handshake(V4, 5000, 1)
    changed = MpCapable(version=1, sender_key=CLIENT, receiver_key=SERVER ^ 1)
    for packet in (syn, answer, there(V4, 5000, options=[changed])):
        host.matches(packet)
    assert not host.answer()
    assert not host.matches(there(V4, 5000, **DATA))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(joins=st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=5))
def test_it_agrees_with_a_plain_model(make: Callable[[str], Host], joins: list[tuple[int, bool]]) -> None:
    """Two connections of two keys each; subflows join either of them from either side."""
    keys = [3, 5, 7, 11]
    host = make(f"connection(token={token(keys[0])})")
    for port, client, server in ((5000, *keys[:2]), (6000, *keys[2:])):
        for packet in handshake(V4, port, 1, client, server):
            host.matches(packet)
    assert host.answer() == 2
    for number, (key, from_client) in enumerate(joins):
        opens = there if from_client else back
        syn = opens(V4, 7000 + number, flags="S", options=[MpJoinSyn(token(keys[key]), 7, 1)])
        # The token named is the receiver's, whoever that is: the packet's way does not matter.
        assert host.matches(syn) == (key < 2)
        assert host.matches(there(V4, 7000 + number, **DATA)) == (key < 2)
