# SPDX-License-Identifier: Apache-2.0
"""What `emptcp list` tells of connections that a rate_limit stage does not cover."""

from __future__ import annotations

import io
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pytest

from emptcp.chain import apply
from emptcp.cli.main import main
from emptcp.lab.echo import echoing
from emptcp.lab.sockets import mptcp_info
from emptcp.lab.topology import Lab, two_hosts
from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss
from emptcp.policy import file
from emptcp_sdk.testing import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.traffic]

PASSING = {"src": "10.9.9.9", "dst": "10.0.2.1", "sport": 7, "dport": 8}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two hosts, of which b forwards what is for another one."""
    with two_hosts(link="veth", name=f"t{os.getpid()}c") as built:
        for path in ("ip_forward", "conf/all/rp_filter", "conf/path1/rp_filter"):
            value = "1" if path == "ip_forward" else "0"
            built.b.call(lambda at=path, to=value: Path("/proc/sys/net/ipv4", at).write_text(to))
        yield built


@pytest.fixture(autouse=True)
def own_emptcp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / f"emt{os.getpid()}-cover"))
    yield
    for name in apply.tables.names():
        apply.remove(name)


@contextmanager
def connection(lab: Lab) -> Iterator[socket.socket]:
    """A connection of two subflows from host a to host b, on which a byte passed each way."""
    with echoing(lab) as client:
        exchange(client)
        wait_until(lambda: mptcp_info(client)[1] == 2)
        yield client


def exchange(client: socket.socket) -> None:
    client.sendall(b"!")
    assert client.recv(1) == b"!"


def limit(actor: str, netns: str, dev: str, hook: str) -> None:
    text = f'table = "limits"\n[[policy]]\nname = "p"\nhook = "{hook}"\ndev = "{dev}"\ndo = ["{actor}"]'
    apply.apply(file.loads(text), netns)


def noted() -> list[str]:
    """Return what stands under the stages, each line once."""
    with redirect_stdout(io.StringIO()) as out:
        assert main(["list", "--json"]) == 0
    (table,) = json.loads(out.getvalue())["tables"]
    stages = [s for program in table["programs"] for policy in program["policies"] for s in policy["stages"]]
    return list(dict.fromkeys(line for stage in stages for line in stage["notes"]))


def tokens(lab: Lab) -> set[str]:
    with redirect_stdout(io.StringIO()) as out:
        assert main(["connections", "--json", "--netns", lab.a.netns]) == 0
    return {row["token"] for row in json.loads(out.getvalue())["subflows"] if row["token"]}


def test_a_connection_of_which_a_subflow_passes_by_is_named(lab: Lab) -> None:
    with connection(lab):
        (token,) = tokens(lab)
        limit("rate_limit(rate=10mbit, mode=window, per=connection)", lab.a.netns, "path2", "ingress")
        assert noted() == [
            f"not covered: 1 connection ({token}): other subflows don't pass this policy, and the "
            "sender takes their window"
        ]
        with redirect_stdout(io.StringIO()) as out:
            assert main(["list"]) == 0
        assert f"                 not covered: 1 connection ({token}): " in out.getvalue()


def test_a_connection_of_which_all_subflows_pass_is_covered(lab: Lab) -> None:
    with connection(lab) as client:
        limit("rate_limit(rate=10mbit, per=connection)", lab.a.netns, "path*", "ingress")
        exchange(client)
        assert noted() == []


@pytest.mark.parametrize("mode", ["pacing", "auto", "police"])
def test_what_this_host_sends_is_covered(lab: Lab, mode: str) -> None:
    with connection(lab) as client:
        limit(f"rate_limit(rate=10mbit, mode={mode})", lab.a.netns, "path*", "egress")
        exchange(client)
        assert noted() == []


def pass_through(lab: Lab, count: int = 1) -> None:
    """Let host a send packets that host b forwards out of path2, each of a subflow of its own."""
    address = bytes.fromhex(lab.paths[0].b.mac.replace(":", ""))
    for number in range(count):
        ends = PASSING | {"sport": PASSING["sport"] + number}
        frame = build(options=[Dss(data_ack=1)], window=9, src_mac=bytes(6), dst_mac=address, **ends)

        def send(frame: bytes = frame) -> None:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind(("path1", 0))
                raw.send(frame)

        lab.a.call(send)


def test_what_only_passes_can_not_be_paced(lab: Lab) -> None:
    limit("rate_limit(rate=10mbit, mode=pacing)", lab.b.netns, "path2", "egress")
    assert noted() == []
    pass_through(lab, 5)
    wait_until(lambda: bool(noted()))
    wait_until(lambda: "5 subflows" in noted()[0])
    assert noted() == [
        "not covered: 5 subflows (10.9.9.9:10 > 10.0.2.1:8, 10.9.9.9:11 > 10.0.2.1:8, "
        "10.9.9.9:7 > 10.0.2.1:8, 2 more): the socket is on another host or in another namespace"
    ]


def test_a_window_of_a_connection_that_is_older_than_the_policy_is_not_known_on_a_hop(lab: Lab) -> None:
    limit("rate_limit(rate=10mbit, per=connection)", lab.b.netns, "path1", "ingress")
    pass_through(lab)
    wait_until(lambda: bool(noted()))
    assert noted() == [
        "not covered: 1 subflow (10.9.9.9:7 > 10.0.2.1:8): older than this policy, and the round-trip time "
        "is not known here"
    ]


def test_another_policys_subflows_are_not_this_ones(lab: Lab) -> None:
    text = """
        table = "limits"
        [[policy]]
        name = "theirs"
        hook = "egress"
        dev = "path2"
        when = "subflow(dport=8)"
        do = ["rate_limit(rate=10mbit, mode=pacing)"]
        [[policy]]
        name = "nobodys"
        hook = "egress"
        dev = "path2"
        when = "subflow(dport=9)"
        do = ["rate_limit(rate=10mbit, mode=pacing)"]
    """
    apply.apply(file.loads(text), lab.b.netns)
    pass_through(lab)
    wait_until(lambda: bool(noted()))
    with redirect_stdout(io.StringIO()) as out:
        assert main(["list", "--json"]) == 0
    (program,) = json.loads(out.getvalue())["tables"][0]["programs"]
    notes = {
        one["name"]: [line for stage in one["stages"] for line in stage["notes"]]
        for one in program["policies"]
    }
    assert (len(notes["theirs"]), notes["nobodys"]) == (1, [])
