# SPDX-License-Identifier: Apache-2.0
"""`emptcp connections` beside policies and controllers: who did what to which subflow; what it carried."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest

from emptcp.control.closed import ClosedConnection, Endings
from emptcp.hooks import namespaces
from emptcp.lab.sockets import listen, mptcp_info, mptcp_socket, receive_exactly
from emptcp.lab.topology import Lab, two_hosts
from emptcp.mptcp.sockets import SubflowReader
from emptcp_sdk.testing import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

PATHS = """
table = "ways"
[path.one]
dev = "path1"
[path.two]
local = "{two}"
[[policy]]
name = "p"
hook = ["ingress", "egress"]
dev = ["path*"]
when = "subflow(dport={port}) and not packet_type('syn')"
do = ["record('packets')"]
[[policy]]
name = "never"
hook = "ingress"
dev = ["path1"]
when = "subflow(dport=1)"
do = ["record('packets')"]
"""
STEER = """
table = "steered"
[[policy]]
name = "spare"
hook = ["ingress", "egress"]
dev = ["path1"]
do = ["set_backup(on=true)"]
"""
CONTROLLED = """
table = "loops"
[path.one]
dev = "path1"
[path.two]
dev = "path2"
[[controller]]
name = "ecf"
use = "ecf"
paths = ["one", "two"]
"""
SENT, ANSWERED = 300_000, 7_000

Write = Callable[..., str]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMPTCP_RUN", str(tmp_path_factory.mktemp("lab")))
        with two_hosts(link="veth", name=f"v{os.getpid()}") as made:
            yield made


class Talk:
    """A connection of two subflows from host a to host b; a closes it first."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        address = lab.paths[0].b.address4
        with ExitStack() as opened:
            listener = opened.enter_context(lab.b.call(lambda: listen("0.0.0.0", timeout=30)))
            self.client = lab.a.call(lambda: mptcp_socket(address, timeout=30))
            self.port = listener.getsockname()[1]
            self.client.connect((address, self.port))
            self.server = opened.enter_context(listener.accept()[0])
            opened.enter_context(self.client)
            self.server.settimeout(20)
            self.exchange(1000, 1000)
            wait_until(lambda: mptcp_info(self.client)[1] == 2)
            self.opened = opened.pop_all()

    def exchange(self, sent: int = 5000, answered: int = 5000) -> None:
        self.client.sendall(bytes(sent))
        receive_exactly(self.server, sent)
        self.server.sendall(bytes(answered))
        receive_exactly(self.client, answered)


@contextmanager
def talk(lab: Lab) -> Iterator[Talk]:
    made = Talk(lab)
    with made.opened:
        yield made


def rows(emptcp: Any, lab: Lab, host: Any) -> dict[str, dict[str, Any]]:
    """Return the live subflows of a host, by their device."""
    said = emptcp("connections", "--json", "--netns", host.netns)
    assert said.code == 0, said.err
    by_address = {end.address4: path.name for path in lab.paths for end in (path.a, path.b)}
    live = [one for one in json.loads(said.out)["subflows"] if one["state"] == "established"]
    return {by_address[one["endpoints"][0][0]]: one for one in live}


def test_paths_bytes_and_the_policies_that_select_a_subflow(lab: Lab, emptcp: Any, write: Write) -> None:
    with talk(lab) as one:
        text = PATHS.format(two=lab.paths[1].a.address4, port=one.port)
        assert emptcp("apply", write(text), "--netns", lab.a.netns).code == 0
        one.exchange(SENT, ANSWERED)
        wait_until(lambda: sum(row["acked"] for row in rows(emptcp, lab, lab.a).values()) > SENT + 1000)
        found = rows(emptcp, lab, lab.a)
        assert {name: row["path"] for name, row in found.items()} == {"path1": "one", "path2": "two"}
        # dport selects on egress alone, and what is sent there is no SYN; the other policy selects nothing.
        expected = [{"table": "ways", "policy": "p"}]
        assert all(row["policies"] == expected for row in found.values()), found
        assert sum(row["received"] for row in found.values()) >= ANSWERED + 1000
        assert all(row["pacing_rate"] > 0 and row["backup_by"] is None for row in found.values())
        assert emptcp("off", "ways", "p").code == 0
        assert all(row["policies"] == [] for row in rows(emptcp, lab, lab.a).values())
        told = emptcp("connections", "--netns", lab.a.netns).out
        assert "established" in told
        assert "kB" in told
    # The sockets are gone, and programs know the subflows still: a host in between sees no more than this.
    wait_until(lambda: not rows(emptcp, lab, lab.a))
    (gone, *_) = json.loads(emptcp("connections", "--json", "--netns", lab.a.netns).out)["subflows"]
    assert (gone["state"], gone["backup"], gone["acked"]) == (None, None, None)


def test_who_made_it_backup(lab: Lab, emptcp: Any, write: Write) -> None:
    with talk(lab) as one:
        assert emptcp("apply", write(STEER), "--netns", lab.a.netns, "--guard-window", "0").code == 0
        wait_until(
            lambda: rows(emptcp, lab, lab.a)["path1"]["backup_by"] == "policy spare", meanwhile=one.exchange
        )
        found = rows(emptcp, lab, lab.a)
        told = {(each["actor"], each["what"], each["whose"]) for each in found["path1"]["last_actions"]}
        assert told == {("set_backup", "backup", "us"), ("set_backup", "backup", "peer")}
        assert (found["path2"]["backup_by"], found["path2"]["last_actions"]) == (None, [])
        # For the other host it was its peer who asked.
        wait_until(lambda: rows(emptcp, lab, lab.b)["path1"]["backup_by"] == "peer")
        assert "yes, policy spare" in emptcp("connections", "--netns", lab.a.netns).out
        assert emptcp("remove", "steered").code == 0
        wait_until(lambda: rows(emptcp, lab, lab.a)["path1"]["backup_by"] is None)
        # The kernel's own endpoint.
        local = lab.paths[1].a.address4
        lab.a.run(["ip", "mptcp", "endpoint", "change", local, "backup"])
        wait_until(lambda: rows(emptcp, lab, lab.a)["path2"]["backup_by"] == "kernel", meanwhile=one.exchange)
        lab.a.run(["ip", "mptcp", "endpoint", "change", local, "nobackup"])


def test_a_controller_made_it_backup(lab: Lab, emptcp: Any, write: Write) -> None:
    assert emptcp("apply", write(CONTROLLED), "--netns", lab.a.netns, "--guard-window", "0").code == 0
    with talk(lab) as one:
        ends = rows(emptcp, lab, lab.a)["path1"]["endpoints"]
        subflow = "-".join(f"{address}:{port}" for address, port in ends)
        # What a controller sets is an entry of its map.
        assert emptcp("map", "add", "ecf-backup", f"{subflow}=true").code == 0
        wait_until(lambda: rows(emptcp, lab, lab.a)["path1"]["backup"], meanwhile=one.exchange)
        assert rows(emptcp, lab, lab.a)["path1"]["backup_by"] == "controller ecf"


@contextmanager
def command(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Have a command run until it is told to end."""
    line = [sys.executable, "-m", "emptcp.cli.main", *words]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0


def next_look(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found


def carried(closed: dict[str, Any]) -> dict[str, int]:
    return {name: sum(one[name] for one in closed["subflows"]) for name in ("acked", "received")}


@pytest.mark.timeout(120)
def test_watching_measures_rates_and_tells_final_bytes_of_what_ended(lab: Lab) -> None:
    with command("connections", "--watch", "0.3", "--json", "--netns", lab.a.netns) as process:
        assert next_look(process)["subflows"] == []
        with talk(lab) as one:
            one.exchange(SENT, ANSWERED)
            while not any((row["measured"] or {}).get("sent") for row in next_look(process)["subflows"]):
                one.exchange(SENT, ANSWERED)
            token = f"{next_look(process)['subflows'][0]['token']}"
            before = next_look(process)["subflows"]
            # The last bytes come too late for any look.
            one.exchange(SENT, ANSWERED)
        deadline = time.monotonic() + 60
        while not (closed := [one for one in next_look(process)["closed"] if one["token"] == token]):
            assert time.monotonic() < deadline
        assert all(one["final"] for one in closed[0]["subflows"])
        now = carried(closed[0])
        # More than that where the kernel sent something on the other subflow, too.
        assert now["acked"] - sum(row["acked"] for row in before) >= SENT
        assert now["received"] - sum(row["received"] for row in before) >= ANSWERED


def test_a_connection_that_comes_and_goes_between_two_looks_is_told(lab: Lab) -> None:
    space = namespaces.resolve(lab.a.netns)
    found: list[ClosedConnection] = []
    with SubflowReader() as reader, closing(Endings(space)) as endings:
        assert endings.look(reader.records(space)) == []
        with talk(lab) as one:
            one.exchange(SENT, ANSWERED)
        wait_until(lambda: found, meanwhile=lambda: found.extend(endings.look(reader.records(space))))
    (ended,) = found
    assert sum(subflow.acked for subflow in ended.subflows) >= SENT + 1000
    assert sum(subflow.received for subflow in ended.subflows) >= ANSWERED + 1000


@pytest.mark.timeout(120)
def test_the_resident_process_keeps_what_ended(lab: Lab, emptcp: Any, write: Write) -> None:
    text = PATHS.format(two=lab.paths[1].a.address4, port=1)
    assert emptcp("apply", write(text), "--netns", lab.a.netns).code == 0
    with command("run") as process:
        assert process.stdout is not None
        while "ready" not in process.stdout.readline():
            assert process.poll() is None
        with talk(lab) as one:
            one.exchange(SENT, ANSWERED)
            token = next(iter(rows(emptcp, lab, lab.a).values()))["token"]

        def kept() -> list[dict[str, Any]]:
            told = json.loads(emptcp("connections", "--json", "--netns", lab.a.netns).out)["closed"]
            return [one for one in told if one["token"] == token]

        wait_until(kept, 40)
    (closed,) = kept()
    assert len(closed["subflows"]) == 2
    assert carried(closed)["acked"] >= SENT + 1000
    assert all(one["final"] for one in closed["subflows"])
    assert "CLOSED" in emptcp("connections", "--netns", lab.a.netns).out
    assert emptcp("connections", "--json", "--netns", lab.b.netns).out.count(f'"{token}"') == 0
