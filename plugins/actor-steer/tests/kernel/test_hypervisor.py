# SPDX-License-Identifier: Apache-2.0
"""A guest's subflows, steered by a hypervisor over its two links to a peer: live MPTCP connections."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from emptcp.api import open_map
from emptcp.chain import apply, running
from emptcp.errors import EmptcpError
from emptcp.hooks import namespaces
from emptcp.lab import namespace, traffic, transfer
from emptcp.lab.host import Host, read_devices
from emptcp.lab.hypervisor import LINKS, Behind, behind_hypervisor
from emptcp.mptcp.sockets import SubflowReader
from emptcp.policy import file
from emptcp_sdk.testing import wait_until

pytestmark = pytest.mark.kernel

SIZE = 4_000_000
HARM = (
    *("MPTcpExtDssFallback", "MPTcpExtMPCapableDataFallback", "MPTcpExtMPFailTx", "MPTcpExtMPRstTx"),
    *("MPTcpExtDataCsumErr", "TcpInCsumErrors"),
)
PACKETS_SENT = 9
"""The column of proc_net_dev(5)."""

POLICY = """
table = "steer"
[[policy]]
name = "guest"
hook = "ingress"
dev = "tap0"
{more}
do = ["steer(to=[{to}], {how})"]
"""


@pytest.fixture(autouse=True)
def own_emptcp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    run = tmp_path / f"emt{os.getpid()}-steer"
    monkeypatch.setenv("EMPTCP_RUN", str(run))
    yield
    for name in apply.tables.names():
        apply.remove(name)


@contextmanager
def lab(**how: Any) -> Iterator[Behind]:
    with behind_hypervisor(name=f"t{os.getpid()}s", **how) as made:
        yield made


def steer(made: Behind, how: str, to: str = "link1, link2", more: str = "") -> Any:
    outcome = apply.apply(file.loads(POLICY.format(to=to, how=how, more=more)), made.hypervisor.netns)
    return next(done for done in outcome.done if done.hook == "ingress")


def on_links(made: Behind) -> dict[str, int]:
    sent = made.hypervisor.sent()
    return {link: sent[link] for link in LINKS}


def packets(made: Behind) -> dict[str, int]:
    sent = made.hypervisor.call(lambda: read_devices(PACKETS_SENT))
    return {link: sent[link] for link in LINKS}


def harm(made: Behind) -> list[tuple[int, ...]]:
    return [tuple(host.counters().get(name, 0) for name in HARM) for host in (made.guest, made.peer)]


def stage() -> Any:
    (program,) = (one for one in running.everything().values() if one.description.hook == "ingress")
    return program.counts()["steer/guest/steer"]


def spread(made: Behind, size: int = SIZE) -> tuple[dict[str, int], transfer.Transfer]:
    """Send both ways over a connection of two subflows; return the bytes that left by each link."""
    before, harmed = on_links(made), harm(made)
    done = transfer.run(made.guest, made.peer, transfer.Order(size, made.addresses[0], 2, 30))
    assert done.intact
    assert done.mptcp
    assert done.subflows == 2
    assert harm(made) == harmed
    return {link: sent - before[link] for link, sent in on_links(made).items()}, done


MODES = [
    pytest.param("mode=nexthop", {}, id="nexthop"),
    pytest.param("mode=nexthop", {"family": 6}, id="nexthop ipv6"),
    pytest.param("mode=port", {"bridged": True}, id="port"),
    pytest.param("mode=port", {"bridged": True, "family": 6}, id="port ipv6"),
    pytest.param("mode=mark, mark=0x10, mask=0xff", {}, id="mark"),
    pytest.param("mode=mark, mark=0x10, mask=0xff", {"family": 6}, id="mark ipv6"),
]


def add_rules(host: Host, family: int) -> None:
    """What an operator adds to mode=mark: each link's mark leads to a routing table of its own."""
    for number in (1, 2):
        version, via = ("-6", f"fd02:{number}::2") if family == 6 else ("-4", f"10.2.{number}.2")
        table, mark = str(100 + number), f"{0x0F + number}/0xff"
        namespace.ip([version, "route", "add", "default", "via", via, "table", table], netns=host.netns)
        namespace.ip([version, "rule", "add", "fwmark", mark, "lookup", table], netns=host.netns)


@pytest.mark.parametrize(("how", "shape"), MODES)
@pytest.mark.parametrize("offload", [True, False], ids=["merged", "tx off"])
def test_a_guest_s_subflows_are_spread_over_the_links(how: str, shape: dict[str, Any], offload: bool) -> None:
    with lab(**shape) as made:
        if "mark" in how:
            add_rules(made.hypervisor, shape.get("family", 4))
        if not offload:
            made.guest.run(["ethtool", "-K", "eth0", "tx", "off"])
            made.peer.run(["ethtool", "-K", "peer1", "tx", "off"])
        unsteered, _ = spread(made)
        assert unsteered["link2"] < SIZE / 100 or shape == {"family": 6}  # routed by a hash
        before = packets(made)
        done = steer(made, how)
        assert (done.backend, done.device) == ("tc", "tap0")
        steered, moved = spread(made)
        if offload:
            left = sum(packets(made).values()) - sum(before.values())
            # Not merged, a packet of the stream has 1,448 bytes at most; acknowledgements are among them.
            assert sum(steered.values()) / left > 4000
        assert min(steered.values()) > SIZE / 20
        assert sum(steered.values()) > SIZE
        counted = stage()
        assert not counted.reasons
        assert counted.packets > 0
        assert (counted.redirects > 0) == ("mark" not in how)
        assert moved.counters_a.get("TcpRetransSegs", 0) < SIZE / 1400 / 20
        steer(made, f"{how}, by=hash".replace("0x10", "0x11"), to="link2")
        steered, _ = spread(made)
        assert steered["link1"] < SIZE / 100 < SIZE < steered["link2"]


def test_by_hash_many_subflows_use_both_links_whose_neighbours_the_kernel_asks_for() -> None:
    with lab() as made:
        namespace.ip(["neigh", "flush", "nud", "permanent"], netns=made.hypervisor.netns)
        steer(made, "by=hash")
        used: Counter[str] = Counter()
        # Chance may give all subflows of some connections to one link, of twenty to none.
        for _ in range(20):
            used += Counter(spread(made, 200_000)[0])
            if min(used[link] for link in LINKS) > 100_000:
                break
        assert min(used[link] for link in LINKS) > 100_000


def test_subflows_that_the_peer_opened_are_counted_by_the_syns_that_go_to_the_guest() -> None:
    with lab(bridged=True) as made:
        steer(made, "mode=port", to="link2, link1")
        before = on_links(made)
        done = transfer.run(made.peer, made.guest, transfer.Order(SIZE, "10.1.0.2", 1, 30))
        assert (done.intact, done.mptcp) == (True, True)
        left = {link: sent - before[link] for link, sent in on_links(made).items()}
        assert left["link1"] < SIZE / 100 < SIZE < left["link2"]
        assert not stage().reasons


BY_MAP = """
table = "steer"
[map.ways]
key = "subflow"
type = "int"
[[policy]]
name = "links"
hook = "egress"
dev = ["link1", "link2"]
do = ["steer(to=[link1, link2], by=link, link=subflow @ways)"]
"""


def test_a_map_says_by_which_link_a_running_subflow_goes() -> None:
    with lab() as made:
        apply.apply(file.loads(BY_MAP), made.hypervisor.netns)
        sender = traffic.start(made.guest, made.peer, made.addresses[0])
        wait_until(lambda: len(subflows(made)) == 2)
        with open_map("ways") as ways:
            for numbers in ((0, 1), (1, 1), (1, 0), (0, 0)):
                ways.add({key: str(number) for key, number in zip(subflows(made), numbers, strict=True)})
                before = on_links(made)
                used = {LINKS[number] for number in numbers}
                wait_until(lambda b=before, u=used: busy(made, b) == u)  # type: ignore[misc]
        assert sender.poll() is None


def busy(made: Behind, before: dict[str, int]) -> set[str]:
    """Return the links that carried more than what was under way when the map changed."""
    return {link for link, sent in on_links(made).items() if sent - before[link] > 3_000_000}


def subflows(made: Behind) -> list[str]:
    with SubflowReader() as reader:
        found = reader.read(namespaces.resolve(made.guest.netns))
    return sorted(f"{one.local}:{one.local_port}-{one.remote}:{one.remote_port}" for one in found if one.open)


def test_removed_in_the_middle_traffic_goes_on_by_the_default_link() -> None:
    with lab() as made:
        steer(made, "mode=nexthop")
        sender = traffic.start(made.guest, made.peer, made.addresses[0])
        start = on_links(made)
        wait_until(lambda: all(on_links(made)[link] - start[link] > 3_000_000 for link in LINKS))
        harmed = harm(made)
        apply.remove("steer")
        after = on_links(made)
        wait_until(lambda: on_links(made)["link1"] - after["link1"] > 20_000_000)
        assert on_links(made)["link2"] - after["link2"] < 200_000
        assert harm(made) == harmed
        assert sender.poll() is None


def test_a_link_that_goes_down_is_passed_by_and_used_again_when_it_is_up() -> None:
    with lab() as made:
        steer(made, "mode=nexthop")
        sender = traffic.start(made.guest, made.peer, made.addresses[0])
        start = on_links(made)
        wait_until(lambda: all(on_links(made)[link] - start[link] > 1_000_000 for link in LINKS))
        namespace.ip(["link", "set", "peer2", "down"], netns=made.peer.netns)
        before = on_links(made)
        wait_until(lambda: on_links(made)["link1"] - before["link1"] > 10_000_000)
        wait_until(lambda: stage().reasons.get("no_link", 0) > 0)
        namespace.ip(["link", "set", "peer2", "up"], netns=made.peer.netns)
        wait_until(lambda: on_links(made)["link2"] - before["link2"] > 5_000_000)
        assert sender.poll() is None


def test_xdp_is_refused_where_steer_is_used_and_tc_is_chosen_with_the_reason() -> None:
    with lab() as made:
        with pytest.raises(EmptcpError, match="actor 'steer' of policy 'guest' works at TC only"):
            steer(made, "by=hash", more='backend = "xdp"')
        assert running.everything() == {}
        done = steer(made, "by=hash")
        assert done.backend == "tc"
        with pytest.raises(EmptcpError, match="there is no device 'link3'"):
            steer(made, "by=hash", to="link3")


def test_xdp_that_another_table_asked_for_is_not_taken_from_it() -> None:
    other = """
    table = "other"
    [[policy]]
    name = "seen"
    hook = "ingress"
    dev = "tap0"
    backend = "xdp-generic"
    do = ["record('packets')"]
    """
    with lab() as made:
        apply.apply(file.loads(other), made.hypervisor.netns)
        with pytest.raises(EmptcpError, match="policies of ingress run by 'xdp-generic'"):
            steer(made, "by=hash")
        (program,) = running.everything().values()
        assert program.description.backend == "xdp-generic"
