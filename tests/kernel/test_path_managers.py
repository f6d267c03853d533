# SPDX-License-Identifier: Apache-2.0
"""Every actor on live connections whose second subflow is made by mptcpd, and by the kernel's path manager.

Host b announces its address on the second path (``ip mptcp endpoint``). At host a, who opens the connections,
either the kernel joins, or (``net.mptcp.pm_type=1``) mptcpd does, with the plugin in ``path_managers``.
Each actor is in force at host a, and what it did is seen at its counters and at the hosts.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path as File
from typing import Any

import pytest

from emptcp.chain import apply, running
from emptcp.chain.counters import Counters
from emptcp.lab import process
from emptcp.lab.duplex import compare, content
from emptcp.lab.namespace import ip
from emptcp.lab.path import Path
from emptcp.lab.sockets import listen, mptcp_info, mptcp_socket
from emptcp.lab.topology import Lab, two_hosts
from emptcp.lab.transfer import Transfer
from emptcp.policy import file
from emptcp_sdk.testing import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

SIZE = 2_000_000
PATIENCE = 30.0
DAEMON = "/usr/libexec/mptcpd"
PLUGIN = File(__file__).parent / "path_managers" / "join.c"
BOTH = '"ingress", "egress"'
BROKEN = re.compile("TcpInCsumErrors|MPTcpExt.*(Fallback|Infinite|MPFail|CsumErr|DSSNo|Corruption|MPRst).*")

POLICY = """
table = "{table}"

[[policy]]
name = "p"
hook = [{hooks}]
dev = ["{device}"]
{when}
do = [{do}]
"""


@pytest.fixture(scope="module", params=["mptcpd", "endpoints"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMPTCP_RUN", str(folder))
        with two_hosts([Path(), Path()], link="veth", name="pm") as made:
            if request.param == "mptcpd":
                start_mptcpd(made, folder)
            yield made


def start_mptcpd(lab: Lab, folder: File) -> None:
    """Leave the paths of host a's connections to mptcpd, which ends with the lab."""
    plugins = folder / "plugins"
    plugins.mkdir(mode=0o755)
    command = ["clang", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(plugins / "join.so"), str(PLUGIN)]
    subprocess.run(command, check=True, timeout=60)
    lab.a.set("net.mptcp.pm_type", 1)
    words = ["--plugin-dir", str(plugins), "--load-plugins", "join", "--path-manager", "join"]
    child = lab.a.start([DAEMON, *words, "--debug", "--log", "stderr"], stderr=subprocess.PIPE)
    wait_for_line(child.stderr, "family appeared")


def wait_for_line(stream: Any, wanted: str, meanwhile: Callable[[], object] = lambda: None) -> str:
    """Return the first line that has the words in it; something may be done again and again until then."""
    deadline, seen = time.monotonic() + PATIENCE, ""
    while not any(wanted in line for line in seen.splitlines()):
        assert time.monotonic() < deadline, seen
        meanwhile()
        if select.select([stream], [], [], 1)[0]:
            read = os.read(stream.fileno(), 1 << 16)
            assert read, seen
            seen += read.decode()
    return next(line for line in seen.splitlines() if wanted in line)


def put_in_force(
    lab: Lab, do: str, *, hooks: str = BOTH, device: str = "path2", when: str = "", table: str = "at-a"
) -> None:
    """Apply one policy, by default on the path of the subflow that joins; table ``at-b`` is host b's."""
    selects = f'when = "{when}"' if when else ""
    text = POLICY.format(table=table, hooks=hooks, device=device, when=selects, do=f'"{do}"')
    apply.apply(file.loads(text), {"at-b": lab.b}.get(table, lab.a).netns)


def counted(stage: str, table: str = "at-a") -> Counters:
    """Return what a stage counted, on the hook where it had most packets."""
    with running.everything() as found:
        counts = [one.counts().get(f"{table}/p/{stage}", Counters()) for one in found.values()]
    return max(counts, key=lambda one: one.packets)


def transfer(lab: Lab, subflows: int = 2) -> Transfer:
    """Send every byte value both ways, and check that the connection is whole."""
    done = lab.transfer(SIZE)
    assert done.intact, (done.at_a, done.at_b)
    assert done.mptcp
    assert done.subflows == subflows
    moved = {**done.counters_a, **done.counters_b}
    assert [name for name in moved if BROKEN.fullmatch(name)] == []
    return done


def share(done: Transfer, path: str = "path2") -> float:
    """Return the part of what host a sent that left by a path."""
    return done.sent_a.get(path, 0) / sum(done.sent_a.values())


def test_both_paths_are_used_and_recorded(lab: Lab) -> None:
    put_in_force(lab, "record('packets', 'bytes')")
    done = transfer(lab)
    assert counted("record").bytes > SIZE / 100
    assert 0.01 < share(done) < 0.99
    who = "userspace" if lab.a.run(["sysctl", "-n", "net.mptcp.pm_type"]).stdout.strip() == "1" else "kernel"
    assert lab.a.run(["sysctl", "-n", "net.mptcp.path_manager"]).stdout.strip() == who


@pytest.mark.parametrize(("device", "said"), [("path1", 1), ("path2", 0)])
def test_set_backup_takes_a_path_out_of_use(lab: Lab, device: str, said: int) -> None:
    """The first subflow is told by an MP_PRIO, the one that joins within its handshake."""
    put_in_force(lab, "set_backup(on=true, steers='us')", device=device)
    done = transfer(lab)
    assert done.counters_a.get("MPTcpExtMPPrioRx", 0) == said
    assert counted("set_backup").packets
    assert share(done, device) < 0.1


def test_blk_subflow_keeps_the_announcement_from_the_path_manager(lab: Lab) -> None:
    put_in_force(lab, "blk_subflow()", device="path*")
    done = transfer(lab, subflows=1)
    assert counted("blk_subflow").drops
    assert share(done) < 0.01


def test_add_subflow_gives_the_path_manager_what_was_kept_back(lab: Lab) -> None:
    put_in_force(lab, "blk_subflow(joins=false)", device="path*")
    with connection(lab) as (client, server):
        wait_until(lambda: counted("blk_subflow").drops > 0)
        assert mptcp_info(client) == (True, 1)
        put_in_force(lab, "add_subflow()", device="path*", table="given-back")
        wait_until(lambda: mptcp_info(client) == (True, 2))
        before = lab.a.sent()["path2"]
        for one, other in ((client, server), (server, client)):
            check_bytes(one, other)
        assert lab.a.sent()["path2"] - before > SIZE / 100
        assert mptcp_info(client) == (True, 2)


@contextmanager
def connection(lab: Lab) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection of host a to host b, by its two ends."""
    with ExitStack() as opened:
        listener = opened.enter_context(lab.b.call(lambda: listen("0.0.0.0", timeout=PATIENCE)))
        client = opened.enter_context(lab.a.call(lambda: mptcp_socket("0.0.0.0", timeout=PATIENCE)))
        client.connect((lab.paths[0].b.address4, listener.getsockname()[1]))
        server = opened.enter_context(listener.accept()[0])
        server.settimeout(PATIENCE)
        yield client, server


def check_bytes(one: socket.socket, other: socket.socket) -> None:
    """Send every byte value one way, and compare every byte."""
    data = content(SIZE, 0)
    with ThreadPoolExecutor(max_workers=1) as pool:
        sent = pool.submit(one.sendall, data)
        got = b""
        while len(got) < SIZE:
            part = other.recv(1 << 18)
            assert part
            got += part
        sent.result()
    assert compare(got, data) == (0, None)


def test_rate_limit_lets_the_joined_subflow_have_its_rate(lab: Lab) -> None:
    put_in_force(lab, "rate_limit(rate=1mbit, mode=police, per=subflow)", hooks='"egress"')
    done = transfer(lab)
    assert counted("rate_limit").drops
    assert share(done) < 0.5


def test_steer_sends_the_joined_subflow_by_the_other_path(lab: Lab) -> None:
    # A way there by the other path, which the kernel has no reason to take.
    first, second = lab.paths
    route = ["10.0.2.0/24", "dev", first.device_a, "metric", "9999"]
    neighbour = [second.b.address4, "dev", first.device_a, "lladdr", first.b.mac]
    for device in (first.device_a, second.device_a):
        lab.a.set(f"net.ipv4.conf.{device}.forwarding", 1)
    ip(["route", "add", *route], netns=lab.a.netns)
    ip(["neighbour", "add", *neighbour], netns=lab.a.netns)
    try:
        put_in_force(lab, "steer(to=[path1], by=hash)", hooks='"egress"')
        done = transfer(lab)
    finally:
        ip(["neighbour", "delete", *neighbour], netns=lab.a.netns)
        ip(["route", "delete", *route], netns=lab.a.netns)
    assert counted("steer").redirects
    assert share(done) < 0.01


def test_add_option_is_seen_at_the_other_host(lab: Lab) -> None:
    put_in_force(lab, "add_option(exid=0xe0e1)", hooks='"egress"')
    put_in_force(lab, "record('packets')", hooks='"ingress"', when="option(exid=0xe0e1)", table="at-b")
    transfer(lab)
    assert counted("add_option").packets
    assert counted("record", "at-b").packets


def test_remove_option_leaves_none_for_the_other_host(lab: Lab) -> None:
    data = "packet_type('data')"
    put_in_force(lab, "remove_option(kind=8, unsafe=true)", hooks='"egress"', when=data)
    put_in_force(lab, "record('packets')", hooks='"ingress"', when=f"{data} and option(kind=8)", table="at-b")
    transfer(lab)
    assert counted("remove_option").packets
    assert counted("packet_type", "at-b").matches
    assert counted("record", "at-b").packets == 0


def test_drop_makes_the_peer_send_again(lab: Lab) -> None:
    put_in_force(lab, "drop()", hooks='"ingress"', when="packet_type('data') and sample(every=9)")
    done = transfer(lab)
    assert counted("drop").drops
    assert done.counters_b.keys() & {"TcpRetransSegs", "MPTcpExtMPTCPRetrans"}


@contextmanager
def command(word: str, *more: str, ready: str, **where: Any) -> Iterator[subprocess.Popen[str]]:
    """A command of emptcp that runs meanwhile, from when it says that it is ready."""
    child = process.start([sys.executable, "-m", "emptcp.cli.main", word, *more], **where)
    try:
        if ready:
            wait_for_line(child.stderr, ready)
        yield child
    finally:
        process.end(child)


@pytest.mark.parametrize(
    ("actor", "device", "event"),
    [("get_connect", "path1", "ESTABLISHED"), ("get_subflow", "path2", "SF_ESTABLISHED")],
)
def test_events_tell_of_the_connection_and_of_the_join(lab: Lab, actor: str, device: str, event: str) -> None:
    pipe = subprocess.PIPE
    with (
        command("run", ready="ready", stderr=pipe),
        command(
            "monitor", "--json", "--netns", lab.a.netns, "--source", actor, ready="", stdout=pipe
        ) as monitor,
    ):
        put_in_force(lab, f"{actor}()", device=device)
        line = wait_for_line(monitor.stdout, f'"{event}"', meanwhile=lambda: transfer(lab))
    assert counted(actor).packets
    path = lab.paths[0 if device == "path1" else 1]
    assert {json.loads(line)[end] for end in ("saddr", "daddr")} == {path.a.address4, path.b.address4}
