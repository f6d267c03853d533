# SPDX-License-Identifier: Apache-2.0
"""Switching programs under a live connection costs it nothing, and no packet goes by uncounted."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from emptcp.chain import running
from emptcp.lab.path import Path
from emptcp.lab.sockets import listen, mptcp_info, mptcp_socket
from emptcp.lab.topology import Lab, two_hosts
from emptcp.pybpf import features
from emptcp_sdk.testing import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.traffic, pytest.mark.usefixtures("instance")]

POLICY = """
table = "switched"
[[policy]]
name = "p"
hook = ["ingress", "egress"]
dev = "path1"
backend = "xdp"
when = "{which}packet_type('data')"
do = ["record('packets')"]
"""
SWITCHES = 100
# A piece is a packet of its own. With its headers that is half of what the link carries.
PIECE, PAUSE = 1200, 0.002
LINK = ["rate", "10.4mbit", "burst", "32kb", "limit", "256kb"]
ATTEMPTS = 3
# What a packet that is lost, damaged or reordered leaves behind, on either host.
TROUBLE = (
    *("TcpRetransSegs", "TcpExtTCPTimeouts", "TcpInErrs", "TcpInCsumErrors"),
    *("TcpEstabResets", "TcpOutRsts", "TcpExtTCPOFOQueue"),
    *("MPTcpExtMPTCPRetrans", "MPTcpExtMPFailTx", "MPTcpExtMPRstTx", "MPTcpExtMPFastcloseTx"),
    *("MPTcpExtMPCapableFallbackACK", "MPTcpExtMPCapableFallbackSYNACK", "MPTcpExtInfiniteMapTx"),
    *("MPTcpExtDSSCorruptionFallback", "MPTcpExtDSSCorruptionReset", "MPTcpExtDSSNotMatching"),
)

BROKEN = [
    name
    for name in TROUBLE
    if any(word in name for word in ("Rst", "Reset", "Fallback", "InfiniteMap", "Fail"))
]

Write = Callable[..., str]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMPTCP_RUN", str(tmp_path_factory.mktemp("lab")))
        with two_hosts([Path()], link="veth", name="switch") as made:
            for host in (made.a, made.b):
                # Neighbours are fixed in a lab. So path1 counts the connection's packets and nothing else;
                # without segmentation in software behind TC they are the same ones as the programs'.
                host.set("net.ipv6.conf.path1.disable_ipv6", "1")
                host.run(["ip", "link", "set", "path1", "gso_max_segs", "1"])
                host.run(["tc", "qdisc", "add", "dev", "path1", "root", "tbf", *LINK])
            yield made


@dataclass
class Ran:
    """What a connection left behind: trouble by counter, packets in and out as path1 of host a has them."""

    trouble: dict[str, int]
    ingress: int
    egress: int


def under_traffic(lab: Lab, work: Callable[[], object]) -> Ran:
    """Do some work while host a sends at a steady pace to host b, which sends all of it back."""
    before, device = standings(lab), packets(lab)
    with connection(lab) as client:
        done = threading.Event()
        reader = threading.Thread(target=read, args=(client, back := bytearray()))
        writer = threading.Thread(target=write_until, args=(client, done, sent := bytearray()))
        reader.start()
        writer.start()
        try:
            work()
        finally:
            done.set()
            writer.join(20)
            reader.join(20)
        assert mptcp_info(client)[0]
    assert back == sent
    assert len(sent) > 50 * PIECE
    wait_until(lambda: nothing_passes(lab))
    after, now = standings(lab), packets(lab)
    trouble = {name: after[name] - before[name] for name in TROUBLE if after[name] != before[name]}
    return Ran(trouble, now[0] - device[0], now[1] - device[1])


def nothing_passes(lab: Lab) -> bool:
    """Return whether for a moment no packet goes either way."""
    before = packets(lab)
    time.sleep(0.2)
    return packets(lab) == before


@contextmanager
def connection(lab: Lab) -> Iterator[socket.socket]:
    address = lab.paths[0].b.address4
    listener = lab.b.call(lambda: listen("0.0.0.0", timeout=30))
    server = threading.Thread(target=echo, args=(listener,))
    with listener, lab.a.call(lambda: mptcp_socket(address, timeout=30)) as client:
        server.start()
        client.connect((address, listener.getsockname()[1]))
        yield client
    server.join(20)


def echo(listener: socket.socket) -> None:
    server, _ = listener.accept()
    with server:
        server.settimeout(20)
        while data := server.recv(1 << 16):
            server.sendall(data)


def read(client: socket.socket, into: bytearray) -> None:
    while data := client.recv(1 << 16):
        into += data


def write_until(client: socket.socket, done: threading.Event, note: bytearray) -> None:
    for number in itertools.count():
        piece = number.to_bytes(8, "big") * (PIECE // 8)
        client.sendall(piece)
        note += piece
        if done.wait(PAUSE):
            break
    client.shutdown(socket.SHUT_WR)


def standings(lab: Lab) -> Counter[str]:
    """Return the counters of both hosts together."""
    return Counter(lab.a.counters()) + Counter(lab.b.counters())


def packets(lab: Lab) -> tuple[int, int]:
    """Return how many packets came in and went out at path1 of host a."""
    said = json.loads(lab.a.run(["ip", "-j", "-s", "link", "show", "path1"]).stdout)[0]["stats64"]
    return said["rx"]["packets"], said["tx"]["packets"]


def counted(emptcp: Any) -> dict[str, int]:
    """Return how many packets the programs of path1 have seen since the first of them, by hook."""
    said = emptcp("list", "--json")
    programs = [one for table in json.loads(said.out)["tables"] for one in table["programs"]]
    return {one["hook"]: one["seen"]["packets"] for one in programs}


def test_a_hundred_switches_by_xdp_and_tc_leave_no_trace_in_a_live_connection(
    lab: Lab, emptcp: Any, write: Write
) -> None:
    loaded: set[int] = set()

    def apply(number: int) -> None:
        path = write(POLICY.format(which=("", "not ")[number % 2]))
        done = emptcp("apply", path, "--netns", lab.a.netns)
        assert done.code == 0, done.err
        loaded.update(one.program.id for one in running.everything().values())

    def switch() -> None:
        began = time.monotonic()
        for number in range(1, SWITCHES + 1):
            apply(number)
        took.append(time.monotonic() - began)

    took: list[float] = []
    apply(0)
    for attempt in range(1, ATTEMPTS + 1):
        before = counted(emptcp)
        switched = under_traffic(lab, switch)
        after = counted(emptcp)
        assert len(loaded) == 2 * (SWITCHES * attempt + 1)
        assert after["ingress"] - before["ingress"] == switched.ingress
        assert after["egress"] - before["egress"] == switched.egress
        if not switched.trouble:
            return
        # A machine with other work loses packets by itself: then as many without a switch.
        control = under_traffic(lab, lambda: time.sleep(took[-1]))
        if all(count <= control.trouble.get(name, 0) for name, count in switched.trouble.items()):
            return
    pytest.fail(f"{SWITCHES} switches left {switched.trouble}, as long without any {control.trouble}")


def stage_counts(emptcp: Any) -> dict[str, tuple[int, int]]:
    """Return what the programs have seen, and what the policy's actor was given, by hook."""
    (table,) = json.loads(emptcp("list", "--json").out)["tables"]
    return {
        one["hook"]: (one["seen"]["packets"], one["policies"][0]["stages"][-1]["packets"])
        for one in table["programs"]
    }


def wait_for_packets(lab: Lab, count: int = 40) -> None:
    """Wait until so many packets more have gone each way."""
    first = packets(lab)
    wait_until(
        lambda: min(now - before for now, before in zip(packets(lab), first, strict=True)) >= count,
        told=lambda: (first, packets(lab)),
    )


@pytest.mark.parametrize("engine", ["fused", "tail"])
@pytest.mark.parametrize("missing", ["", "tcx,xdp_link"], ids=["links", "no links"])
def test_off_and_on_in_the_middle_of_a_connection_reset_nothing_and_counters_stand_still(
    lab: Lab, emptcp: Any, write: Write, monkeypatch: pytest.MonkeyPatch, missing: str, engine: str
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", missing)
    text = f'engine = "{engine}"\n' + POLICY.format(which="").replace('"xdp"', '"tc"')
    assert emptcp("apply", write(text), "--netns", lab.a.netns).code == 0

    def switch(*words: str) -> dict[str, tuple[int, int]]:
        """Switch, let packets pass, and return the counts of now."""
        assert emptcp(*words).code == 0
        before = stage_counts(emptcp)
        wait_for_packets(lab)
        after = stage_counts(emptcp)
        return {hook: tuple(b - a for a, b in zip(before[hook], after[hook], strict=True)) for hook in after}

    def work() -> None:
        for _ in range(3):
            assert set(switch("off").values()) == {(0, 0)}
            assert all(min(passed) >= 10 for passed in switch("on").values())
            skipped = switch("off", "switched")
            assert all(seen >= 10 and given == 0 for seen, given in skipped.values())
            assert all(min(passed) >= 10 for passed in switch("on", "switched").values())

    ran = under_traffic(lab, work)
    assert {name: ran.trouble[name] for name in BROKEN if name in ran.trouble} == {}


CHAINED = """
table = "switched"
{engine}
[[policy]]
name = "p"
hook = ["ingress", "egress"]
dev = "path1"
backend = "{backend}"
when = "packet_type('data')"
do = ["goto kept"]
[[policy]]
name = "q"
hook = ["ingress", "egress"]
dev = "path1"
when = "not packet_type('data')"
do = ["first: record('packets')", "goto kept"]
[chain.kept]
do = ["every: record('packets')"]
"""

EDITS = (
    ("insert", "p", "and not packet_type('syn')"),
    ("insert", "p", "or packet_type('rst')", "--after", "packet_type#2"),
    ("replace", "p", "packet_type#2", "packet_type('synack')"),
    ("remove", "p", "packet_type#3"),
    ("remove", "p", "packet_type#2"),
    ("insert", "q", "second: record('bytes')"),
    ("insert", "q", "zeroth: record('bytes')", "--before", "first"),
    ("replace", "q", "second", "third: record('packets')"),
    ("insert", "@kept", "also: record('bytes')", "--at", "1"),
    ("replace", "switched/@kept", "1", "other: record('packets')"),
    ("remove", "q", "zeroth"),
    ("remove", "@kept", "other"),
    ("remove", "q", "third"),
)


IN_METADATA = 'engine = "tail"\ntail.carrier = "metadata"'


@pytest.mark.parametrize(
    ("engine", "backend"),
    [
        ('engine = "fused"', "tc"),
        ('engine = "tail"', "tc"),
        # 32 bytes in front of a packet are eight entries: too few for these policies.
        *(((IN_METADATA, "xdp"), (IN_METADATA, "xdp-generic")) if features.has("long_metadata") else ()),
    ],
)
def test_stages_come_change_and_go_under_a_live_connection_and_no_packet_goes_by_uncounted(
    lab: Lab, emptcp: Any, write: Write, engine: str, backend: str
) -> None:
    """Each packet passes chain `kept` by one of two policies, whatever is edited around its stage."""
    assert (
        emptcp("apply", write(CHAINED.format(engine=engine, backend=backend)), "--netns", lab.a.netns).code
        == 0
    )
    meant = emptcp("list", "--file").out

    def every() -> dict[str, int]:
        (table,) = json.loads(emptcp("list", "--json").out)["tables"]
        return {
            program["hook"]: next(
                stage["packets"]
                for chain in program["chains"]
                for stage in chain["stages"]
                if stage["id"] == "every"
            )
            for program in table["programs"]
        }

    def edit() -> None:
        for words in EDITS:
            done = emptcp("chain", *words)
            assert done.code == 0, (words, done.err)

    before = every()
    ran = under_traffic(lab, edit)
    after = every()
    assert (after["ingress"] - before["ingress"], after["egress"] - before["egress"]) == (
        ran.ingress,
        ran.egress,
    )
    assert {name: ran.trouble[name] for name in BROKEN if name in ran.trouble} == {}
    assert emptcp("list", "--file").out == meant


def test_a_shared_chain_is_tuned_once_for_all_policies(lab: Lab, emptcp: Any, write: Write) -> None:
    assert emptcp("apply", write(CHAINED.format(engine="", backend="tc")), "--netns", lab.a.netns).code == 0
    programs = {one.program.id for one in running.everything().values()}
    assert emptcp("tune", "@kept", "every", "what=bytes").code == 0
    assert {one.program.id for one in running.everything().values()} == programs
    assert emptcp("list").out.count("every") == 2  # once for each hook
    assert "every: record(what=bytes)" in emptcp("list", "--file").out
    assert emptcp("tune", "p", "@kept/every", "what=packets").code == 0
    assert "every: record(what=packets)" in emptcp("list", "--file").out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("remove", "p", "packet_type"), "is the only selector of policy 'p'"),
        (("remove", "@kept", "every"), "chain 'kept' would have no actor left"),
        (("insert", "@kept", "and packet_type('syn')"), "has no such place in chain 'kept'"),
        (("insert", "p", "record('rtt')", "--before", "packet_type"), "no neighbour for an actor"),
        (("insert", "q", "and packet_type('syn')", "--after", "first"), "'and' joins selectors"),
        (("replace", "p", "nothing", "record('rtt')"), "policy 'p' has no stage 'nothing'"),
        (("replace", "q", "first", "packet_type('syn')"), "'packet_type' is a selector, not an actor"),
        (("remove", "@keep", "every"), "there is no running chain '@keep'"),
    ],
)
def test_an_edit_that_can_not_be_is_refused_and_changes_nothing(
    lab: Lab, emptcp: Any, write: Write, words: tuple[str, ...], sentence: str
) -> None:
    assert emptcp("apply", write(CHAINED.format(engine="", backend="tc")), "--netns", lab.a.netns).code == 0
    meant, programs = emptcp("list", "--file").out, {one.program.id for one in running.everything().values()}
    refused = emptcp("chain", *words)
    assert refused.code == 1
    assert sentence in refused.err
    assert emptcp("list", "--file").out == meant
    assert {one.program.id for one in running.everything().values()} == programs
