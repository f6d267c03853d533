# SPDX-License-Identifier: Apache-2.0
"""rate_limit by window lets connections go that have subflows elsewhere: packets, and live connections."""

from __future__ import annotations

import io
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stdout
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from emptcp.api import SubflowReader, namespaces
from emptcp.chain import apply, flows, pins
from emptcp.chain.bind import stage_number
from emptcp.chain.dryrun import Runner
from emptcp.cli.main import main
from emptcp.control.upkeep import Upkeep
from emptcp.lab.echo import echoing
from emptcp.lab.path import Path as LabPath
from emptcp.lab.resident import resident
from emptcp.lab.sockets import mptcp_info
from emptcp.lab.topology import Lab, two_hosts
from emptcp.packet.build import build
from emptcp.packet.decode import decode
from emptcp.packet.mptcp import Dss, MpJoinSyn
from emptcp.packet.tcp import WindowScale
from emptcp.plugins.catalog import Catalog
from emptcp.plugins.manager import Manager
from emptcp.policy import file
from emptcp_actor_rate_limit import parted
from emptcp_sdk.testing import wait_until

pytestmark = pytest.mark.kernel

WINDOW = "mode=window, per=connection"
LIMIT = f"rate_limit(rate=1mbit, {WINDOW})"
ELSEWHERE = "other subflows don't pass this policy"
SUBFLOW = {"src": "10.0.0.1", "sport": 40000, "dst": "10.0.0.2", "dport": 5001}
V6 = SUBFLOW | {"family": 6, "src": "fd00::1", "dst": "fd00::2"}
TRIAL = 0
"""The network namespace of a program that is attached nowhere."""


# Packets


def mark(runner: Any, hook: int = 0, netns: int = TRIAL, stage: str = "rate_limit", **ends: Any) -> bytes:
    """Refuse a subflow, as the plugin's Python side does; return the map's key."""
    one, other = (
        (ip_address(ends[address]), ends[port]) for address, port in (("src", "sport"), ("dst", "dport"))
    )
    subflow = flows.key(one, other)
    key = parted._STAGE.pack(stage_number(f"trial/trial/{stage}"), netns) + hook.to_bytes(4, "little")
    runner.map(parted.REFUSED).update(key + subflow + bytes(4), (7).to_bytes(4, "little"))
    return key + subflow + bytes(4)


def known(runner: Any, **ends: Any) -> None:
    """Let the packets of a handshake pass: the round trip is known then."""
    there = SUBFLOW | ends
    back = there | {
        "src": there["dst"],
        "sport": there["dport"],
        "dst": there["src"],
        "dport": there["sport"],
    }
    runner.run(build(flags="S", options=[MpJoinSyn(0, 1, 2, 3), WindowScale(0)], **there))
    runner.run(build(flags="SA", options=[WindowScale(0)], **back))
    runner.run(build(options=[Dss(data_ack=1)], window=1, **there))


def window(runner: Any, **ends: Any) -> tuple[int, str | None]:
    """Return the window of a packet that passed, and why the packet was left alone."""
    result = runner.run(build(options=[Dss(data_ack=1)], window=0xFFFF, **SUBFLOW | ends))
    found = decode(result.data)
    assert result.verdict == "pass"
    assert found.valid
    assert found.tcp is not None
    return found.tcp.window, result.reason


@pytest.mark.parametrize("ends", [SUBFLOW, V6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("hook", ["ingress", "egress"])
def test_packets_of_a_marked_subflow_are_left_alone(
    policy: Callable[..., Any], ends: dict[str, Any], hook: str
) -> None:
    runner = policy(f"rate_limit(rate=8kbit, {WINDOW})", hook=hook)
    known(runner, **ends)
    assert window(runner, **ends)[0] < 0xFFFF
    key = mark(runner, hook=("ingress", "egress").index(hook), **ends)
    assert window(runner, **ends) == (0xFFFF, "refused")
    runner.map(parted.REFUSED).delete(key)
    assert window(runner, **ends)[0] < 0xFFFF


@pytest.mark.parametrize(
    "other",
    [{"hook": 1}, {"netns": TRIAL + 1}, {"stage": "rate_limit#2"}, {"sport": 40001}],
    ids=["hook", "namespace", "stage", "subflow"],
)
def test_a_mark_is_for_one_stage_on_one_hook_of_one_namespace(
    policy: Callable[..., Any], other: dict[str, Any]
) -> None:
    runner = policy(f"rate_limit(rate=8kbit, {WINDOW})")
    known(runner)
    mark(runner, **SUBFLOW | other)
    assert window(runner)[0] < 0xFFFF


def test_of_two_stages_the_one_that_is_not_refused_limits(policy: Callable[..., Any]) -> None:
    runner = policy(f"rate_limit(rate=8kbit, {WINDOW})", f"rate_limit(rate=16kbit, {WINDOW})")
    known(runner)
    mark(runner, **SUBFLOW)
    assert window(runner) == (window(runner)[0], "refused")
    assert window(runner)[0] < 0xFFFF


def test_the_window_of_a_syn_stays_without_a_reason(policy: Callable[..., Any]) -> None:
    runner = policy(f"rate_limit(rate=8kbit, {WINDOW})")
    mark(runner, **SUBFLOW)
    result = runner.run(build(flags="S", options=[MpJoinSyn(0, 1, 2, 3)], window=0xFFFF, **SUBFLOW))
    assert result.reason is None


def test_pacing_and_policing_ask_no_mark(policy: Callable[..., Any]) -> None:
    runner = policy("rate_limit(rate=8kbit, burst=1ms, mode=police)")
    mark(runner, **SUBFLOW)
    packet = build(options=[Dss(data_ack=1)], payload=bytes(1000), **SUBFLOW)
    assert [runner.run(packet).verdict for _ in range(2)] == ["pass", "drop"]


# Live connections


class Live:
    """A connection whose data goes by the first path, all other subflows being backups."""

    def __init__(self, lab: Lab, client: socket.socket, reader: SubflowReader) -> None:
        self.lab, self._client, self._reader = lab, client, reader
        self._space = namespaces.resolve(lab.a.netns)
        self._refused = 0

    def exchange(self) -> None:
        self._client.sendall(b"!")
        assert self._client.recv(1) == b"!"

    def open(self, path: int) -> None:
        """Let host b announce its address on a path, and wait for the subflow."""
        end, before = self.lab.paths[path].b, mptcp_info(self._client)[1]
        announced = f"{end.address(4)} dev {end.device} id {path + 1} signal backup"
        self.lab.b.run(f"ip mptcp endpoint add {announced}".split())
        self.until(lambda: mptcp_info(self._client)[1] == before + 1)
        self.until(lambda: len(self._open()) == before + 1)

    def close(self, path: int) -> None:
        """Let host b take the address back, and wait until the subflow has gone."""
        before = len(self._open())
        self.lab.b.run(["ip", "mptcp", "endpoint", "del", "id", str(path + 1)])
        self.until(lambda: len(self._open()) == before - 1)

    def _open(self) -> list[Any]:
        return [one for one in self._reader.read(self._space) if one.open]

    def window(self) -> int:
        """Return the window that the peer offers on the first path, in bytes, as our socket has it."""
        self.exchange()
        first = self.lab.paths[0].a.address(4)
        return next(one.send_window for one in self._open() if str(one.local) == first)

    def until(self, holds: Callable[[], bool]) -> None:
        """Exchange bytes until something holds."""
        wait_until(holds, 40, meanwhile=self.exchange)

    def is_limited(self) -> None:
        """Wait until windows are lowered, and nothing is told."""
        self.until(lambda: self.window() < LOW)
        self.until(lambda: not noted()[0])

    def is_left_alone(self) -> None:
        """Wait until windows are what the peer offers, packets are counted by the reason, and it is told."""
        self.until(lambda: self.window() > LOW)
        self.until(
            lambda: len(lines := noted()[0]) == 1 and ELSEWHERE in lines[0] and "nobody" not in lines[0]
        )
        before = noted()[1]
        self.until(lambda: noted()[1] > before)


LOW = 20_000
"""Bytes: between what 1 Mbit/s takes in the round trips of a veth, up to 0.1 s, and what a host offers."""


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Lab]:
    """Two hosts with three paths, of which host b announces none."""
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / f"emt{os.getpid()}-parted"))
    with two_hosts([LabPath()] * 3, link="veth", name=f"t{os.getpid()}p") as built:
        built.b.run(["ip", "mptcp", "endpoint", "flush"])
        yield built
        for name in apply.tables.names():
            apply.remove(name)


@contextmanager
def connected(lab: Lab, reader: SubflowReader | None = None) -> Iterator[Live]:
    """A connection from host a to host b over the first path, whose bytes come back."""
    if reader is None:
        with SubflowReader() as made, connected(lab, made) as live:
            yield live
        return

    with echoing(lab) as client:
        live = Live(lab, client, reader)
        live.exchange()
        yield live


def limit(lab: Lab, *devices: str, when: str = "") -> None:
    text = f'table = "limits"\n[[policy]]\nname = "p"\nhook = "ingress"\ndev = {list(devices)}\n{when}\n'
    apply.apply(file.loads(f'{text}do = ["{LIMIT}"]'), lab.a.netns)


def noted() -> tuple[list[str], int]:
    """Return what `emptcp list` says under the stage, and how many packets were refused."""
    with redirect_stdout(io.StringIO()) as out:
        assert main(["list", "--json"]) == 0
    (table,) = json.loads(out.getvalue())["tables"]
    stages = [s for program in table["programs"] for policy in program["policies"] for s in policy["stages"]]
    lines = dict.fromkeys(line for one in stages for line in one["notes"])
    return list(lines), sum(one["reasons"].get("refused", 0) for one in stages)


def test_a_connection_is_limited_when_all_its_subflows_pass_and_let_go_when_they_dont(lab: Lab) -> None:
    limit(lab, "path1", "path2")
    with connected(lab) as live, resident("--no-guard"):
        live.open(1)
        live.is_limited()
        limit(lab, "path1")
        live.is_left_alone()
        limit(lab, "path1", "path2")
        live.is_limited()
        live.open(2)
        live.is_left_alone()
        live.close(2)
        live.is_limited()
        limit(lab, "path1", "path2", when='when = "not subflow(daddr=10.9.9.9)"')
        live.is_limited()


def test_a_connection_that_begins_later_is_let_go_when_it_joins_elsewhere(lab: Lab) -> None:
    with resident("--no-guard"):
        limit(lab, "path1", "path2")
        with connected(lab) as live:
            live.open(1)
            live.is_limited()
            live.open(2)
            live.is_left_alone()


def test_without_a_process_apply_sees_it_and_list_tells_what_nobody_has_seen(lab: Lab) -> None:
    limit(lab, "path1", "path2")
    with connected(lab) as live:
        live.open(1)
        live.is_limited()
        live.open(2)
        live.until(lambda: any("windows are lowered until" in line for line in noted()[0]))
        assert live.window() < LOW
        limit(lab, "path1", "path2")
        live.is_left_alone()
        live.close(2)
        live.until(lambda: any("windows are left alone until" in line for line in noted()[0]))
        assert live.window() > LOW
        limit(lab, "path1", "path2")
        live.is_limited()


def test_what_is_refused_is_forgotten_with_the_stage_and_seen_again_when_it_is_back(lab: Lab) -> None:
    with connected(lab) as live:
        live.open(1)
        limit(lab, "path1")
        live.is_left_alone()
        assert marks() == 1
        assert main(["off", "limits"]) == 0
        assert marks() == 0
        assert main(["on", "limits"]) == 0
        assert marks() == 1
        live.is_left_alone()


def test_where_the_kernel_lists_no_subflows_windows_are_lowered_and_nothing_is_told(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SubflowReader() as reader:
        monkeypatch.setenv("EMPTCP_DISABLE", "bpf_iter_tcp")
        limit(lab, "path1")
        with connected(lab, reader) as live:
            live.open(1)
            limit(lab, "path1")
            live.is_limited()


def test_a_policy_is_asked_once_of_each_subflow_while_a_process_looks(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []
    plain = Runner.run
    limit(lab, "path1", when='when = "subflow(dport=1) or not subflow(dport=1)"')
    tree, catalog, manager = pins.find(), Catalog.of_enabled(), Manager.of_enabled()
    assert tree is not None
    with connected(lab) as live, closing(Upkeep()) as upkeep:
        live.open(1)
        monkeypatch.setattr(Runner, "run", lambda self, data: asked.append(data) or plain(self, data))
        for _ in range(3):
            upkeep.look(tree, catalog, manager)
        first = len(asked)
        assert (first, marks()) == (1, 1)
        live.open(2)
        live.close(1)
        upkeep.look(tree, catalog, manager)
        assert (len(asked), marks()) == (first, 1)
        live.close(2)
        upkeep.look(tree, catalog, manager)
        assert (len(asked), marks()) == (first, 0)


def marks() -> int:
    table = parted.open_plugin_map(parted.PLUGIN, parted.REFUSED)
    assert table is not None
    with table:
        return len(list(table.items()))
