# SPDX-License-Identifier: Apache-2.0
"""The guard on live connections: a stranger's broken actor is switched off; what does no harm stays."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from emptcp.chain import off, tables
from emptcp.chain.spoiling import Spoilers
from emptcp.control.harm import HARM
from emptcp.hooks import namespaces
from emptcp.lab import namespace, offload
from emptcp.lab.host import Host
from emptcp.lab.path import Path as LabPath
from emptcp.lab.sockets import listen, mptcp_info, mptcp_socket, receive_exactly, wildcard
from emptcp.lab.topology import Lab, two_hosts
from emptcp.mptcp.inject import Injector
from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss, MpTcpReset
from emptcp_sdk.compiler import compile_source, find_compiler
from emptcp_sdk.testing import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]


class Said(Protocol):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


class Command(Protocol):
    """Runs a command of emptcp."""

    def __call__(self, *words: str) -> Said: ...


# What tells the tests when harm was first done.
CLOCK = (*HARM, "MPTcpExtMPRstTx")

# What it does is not what its manifest says: data loses its mapping, with mark(2) the first one, too.
BROKEN = """
#include <emptcp/actor.h>

struct mark {
	__u32 number;
};

EMPTCP_ACTOR(mark, pkt, struct mark, param)
{
	if (!pkt->parsed->payload_len)
		return EMPTCP_NEXT;
	emptcp_remove_option(pkt, EMPTCP_DSS, EMPTCP_UNSAFE_DSS);
	if (param->number > 1)
		emptcp_remove_option(pkt, EMPTCP_MP_CAPABLE, EMPTCP_UNSAFE_DSS);
	return EMPTCP_NEXT;
}
"""
# Writes into packets without a word to their checksum: another window, or the checksum itself.
RAW = """
#include <emptcp/actor.h>

struct mark {{
	__u32 number;
}};

EMPTCP_ACTOR(mark, pkt, struct mark, param)
{{
	__u16 other = param->number + 1000;
	__u32 at = pkt->parsed->l4 + {at};
	__u8 *place;

	if (!pkt->parsed->payload_len)
		return EMPTCP_NEXT;
	if (pkt->backend == EMPTCP_TC) {{
		bpf_skb_store_bytes(pkt->ctx, at, &other, sizeof(other), 0);
		return EMPTCP_NEXT;
	}}
	place = emptcp_bytes(pkt, at, sizeof(other));
	if (place)
		__builtin_memcpy(place, &other, sizeof(other));
	return EMPTCP_NEXT;
}}
"""
WINDOW, CHECKSUM = 14, 16
# Changes what a DSS says: in ACKs what is acknowledged; of data where in the connection or in the subflow it
# stands, or how long it is.
CHANGES_DSS = """
#include <emptcp/actor.h>

struct mark {
	__u32 number;
};

EMPTCP_ACTOR(mark, pkt, struct mark, param)
{
	__u32 wrong = 0x12345678, len = pkt->parsed->len[EMPTCP_DSS];

	if (param->number == 1) {
		if (!pkt->parsed->payload_len)
			emptcp_rewrite_option(pkt, EMPTCP_DSS, 4, &wrong, 4, EMPTCP_UNSAFE_DSS);
		return EMPTCP_NEXT;
	}
	if (len < 16 || !pkt->parsed->payload_len)
		return EMPTCP_NEXT;
	if (param->number == 2)
		emptcp_rewrite_option(pkt, EMPTCP_DSS, len - 10, &wrong, 4, EMPTCP_UNSAFE_DSS);
	else if (param->number == 3)
		emptcp_rewrite_option(pkt, EMPTCP_DSS, len - 6, &wrong, 4, EMPTCP_UNSAFE_DSS);
	else
		emptcp_rewrite_option(pkt, EMPTCP_DSS, len - 2, &wrong, 2, EMPTCP_UNSAFE_DSS);
	return EMPTCP_NEXT;
}
"""
DATA_ACK, DSN, SUBFLOW_SEQ, LENGTH = 1, 2, 3, 4
POLICY = """
table = "t"
[[policy]]
name = "broken"
hook = "ingress"
dev = "{device}"
do = ["mark()"]
"""
AT_XDP = POLICY.replace("do =", 'backend = "{backend}"\ndo =')
FIRST_DATA = 'engine = "{engine}"\n' + AT_XDP.replace("mark()", "mark({number})")
BACKUP = """
table = "t"
[[policy]]
name = "slow"
hook = "egress"
dev = "path1"
do = ["set_backup(on=true)"]
"""

# Works on packets to the server's port, whatever they carry.
SELECTING = """
table = "t"
[[policy]]
name = "slow"
hook = "ingress"
dev = "left*"
when = "subflow(dport={port}) and not packet_type('syn')"
do = ["rate_limit(rate=1gbit, mode=police)"]
"""

# Loses the mappings of all connections but one.
BREAKING = """
table = "u"
[[policy]]
name = "breaks"
hook = "ingress"
dev = "path*"
when = "not subflow(dport={port})"
do = ["mark()"]
"""

# Works on packets, of that one or of the others.
WORKING = """
table = "t"
[[policy]]
name = "works"
hook = "ingress"
dev = "path*"
when = "{when}"
do = ["rate_limit(rate=1gbit, mode=police)"]
"""
# Takes the DSS off what carries no data, too.
SILENCING = """
table = "t"
[[policy]]
name = "broken"
hook = "{hook}"
backend = "{backend}"
dev = "{device}"
do = ["remove_option(option=dss, unsafe=true)"]
"""
HEARD = "RST with MP_TCPRST (middlebox)"
FELL_BACK = "fallback to plain TCP"
SPOILT = "wrong TCP checksum"
RESENT = "data that is sent again and again"
RESET = "RST with MP_TCPRST"
HARMLESS = """
table = "t"
[[policy]]
name = "counted"
hook = "egress"
dev = "path1"
do = ["record('packets')"]
"""


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("broken") / "mark.bpf.c"
    source.write_text(BROKEN)
    compile_source(find_compiler(), source, source.with_suffix(".o"))
    return source.with_suffix(".o")


@pytest.fixture
def lab() -> Iterator[Lab]:
    with two_hosts(link="veth", name=f"t{os.getpid()}g") as built:
        yield built


@pytest.fixture
def usual(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is without the tests' own setting."""
    monkeypatch.delenv("EMPTCP_GUARD_WINDOW")


@pytest.fixture
def installed(stranger: Callable[..., Path], broken: Path, emptcp: Command) -> None:
    package = stranger()
    shutil.copy(broken, package / "mark.bpf.o")
    allow(package, '"ingress", "egress"')
    emptcp("plugins", "enable", "mark")


@pytest.fixture
def changes_dss(stranger: Callable[..., Path], emptcp: Command) -> None:
    """An actor that changes a DSS: which part of it, its parameter says."""
    compile_into(stranger(), CHANGES_DSS, '"ingress", "egress"')
    emptcp("plugins", "enable", "mark")


@pytest.fixture
def writes_raw(stranger: Callable[..., Path], emptcp: Command) -> Callable[[int, str], None]:
    """Return what installs an actor that writes two bytes into the TCP header: where, and at which hook."""

    def install(at: int, hook: str) -> None:
        compile_into(stranger(), RAW.format(at=at), f'"{hook}"')
        emptcp("plugins", "enable", "mark")

    return install


def compile_into(package: Path, code: str, hooks: str) -> None:
    """Let a stranger's plugin be this code, for these hooks."""
    source = package / "mark.bpf.c"
    source.write_text(code)
    compile_source(find_compiler(), source, package / "mark.bpf.o")
    allow(package, hooks)


def allow(package: Path, hooks: str) -> None:
    """Let a stranger's manifest name these hooks."""
    manifest = package / "emptcp.toml"
    manifest.write_text(manifest.read_text().replace('"ingress"', hooks))


class Traffic:
    """A connection with a subflow on each path that sends all the time, and when harm was first counted.

    ``down``: the server sends, else the client, every so many seconds.
    """

    def __init__(
        self, names: tuple[str, str], address: str, down: bool = False, every: float = 0.005
    ) -> None:
        here, there = self._hosts = Host("a", names[0]), Host("b", names[1])
        self._before = self._counted()
        self._stop = threading.Event()
        self._every = every
        self.harmed = 0.0
        self.received = 0
        self._stack = ExitStack()
        listener = self._stack.enter_context(there.call(lambda: listen(wildcard(address), timeout=30)))
        self.client = self._stack.enter_context(here.call(lambda: mptcp_socket(address, timeout=30)))
        self.client.connect((address, listener.getsockname()[1]))
        ends = self.client, self._stack.enter_context(listener.accept()[0])
        self._source, self._sink = ends[::-1] if down else ends
        self._sink.settimeout(0.2)
        self._threads = [threading.Thread(target=one) for one in (self._send, self._receive, self._watch)]
        for thread in self._threads:
            thread.start()

    def _counted(self) -> int:
        return sum(host.counters().get(name, 0) for host in self._hosts for name in CLOCK)

    def _send(self) -> None:
        while not self._stop.wait(self._every):
            try:
                self._source.send(bytes(20000), socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
            except OSError:
                return

    def _receive(self) -> None:
        while not self._stop.is_set():
            try:
                if not (data := self._sink.recv(1 << 20)):
                    return
                self.received += len(data)
            except TimeoutError:
                continue
            except OSError:
                return

    def _watch(self) -> None:
        while not self.harmed and not self._stop.wait(0.02):
            if self._counted() > self._before:
                self.harmed = time.monotonic()

    def wait_for_subflows(self, count: int) -> None:
        wait_until(lambda: mptcp_info(self.client)[1] >= count)

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(5)
        self._stack.close()


@contextmanager
def traffic(
    client: str, server: str, address: str, subflows: int = 2, down: bool = False, every: float = 0.005
) -> Iterator[Traffic]:
    made = Traffic((client, server), address, down, every)
    try:
        made.wait_for_subflows(subflows)
        yield made
    finally:
        made.end()


def between(lab: Lab) -> AbstractContextManager[Traffic]:
    return traffic(lab.a.netns, lab.b.netns, lab.paths[0].b.address(4), len(lab.paths))


@pytest.fixture
def hop() -> Iterator[tuple[str, str, str]]:
    """Client, router and server; two networks on either side, the server announces its second address."""
    client, router, server = (f"emt{os.getpid()}-g-{role}" for role in ("client", "router", "server"))
    with ExitStack() as undo:
        for name in (client, router, server):
            namespace.add(name)
            undo.callback(namespace.remove, name)
        for number in (1, 2):
            cable(client, router, f"left{number}", f"10.8.{number}")
            cable(server, router, f"right{number}", f"10.9.{number}")
            namespace.ip_batch([f"route add 10.9.{number}.0/24 via 10.8.{number}.254"], netns=client)
            namespace.ip_batch([f"route add 10.8.{number}.0/24 via 10.9.{number}.254"], netns=server)
        Host("router", router).set("net.ipv4.ip_forward", 1)
        for name in (client, server):
            namespace.ip(["mptcp", "limits", "set", "subflows", "2", "add_addr_accepted", "2"], netns=name)
        namespace.ip(["mptcp", "endpoint", "add", "10.9.2.1", "dev", "right2", "signal"], netns=server)
        yield client, router, server


def cable(host: str, router: str, device: str, network: str) -> None:
    namespace.ip(f"link add {device} netns {host} type veth peer name {device} netns {router}".split())
    for name, last in ((host, 1), (router, 254)):
        lines = [f"address add {network}.{last}/24 dev {device}", f"link set {device} up"]
        namespace.ip_batch(lines, netns=name)


@pytest.mark.soon
@pytest.mark.usefixtures("installed")
def test_a_fallback_that_only_the_kernel_counts_switches_off_too(
    emptcp: Command, write: Callable[[str], str]
) -> None:
    with two_hosts([LabPath(100e6, 0.01)], link="veth", name=f"t{os.getpid()}h") as lab:
        with between(lab) as running:
            path = write(POLICY.format(device="path*"))
            done = emptcp("apply", path, "--netns", lab.b.netns, "--guard-window", "30")
            ended = time.monotonic()
        assert done.code == 1, done
        assert f"{FELL_BACK} 1" in done.err
        assert running.harmed
        assert ended - running.harmed < 2
        emptcp("remove", "t")


@pytest.mark.soon
@pytest.mark.usefixtures("installed")
def test_the_resident_process_guards_always_and_monitor_tells_of_it(
    lab: Lab, emptcp: Command, write: Callable[[str], str], tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    with process("run", env=environment) as resident, ExitStack() as stack:
        wait_for(resident, "ready")
        assert emptcp("apply", write(POLICY.format(device="path*")), "--netns", lab.b.netns).code == 0
        assert emptcp("off", "t").code == 0
        words = ("monitor", "--json", "--netns", lab.b.netns)
        with process(*words, env=environment) as monitor:
            await_monitor(lab, monitor)
            running = stack.enter_context(between(lab))
            assert emptcp("on", "t").code == 0
            wait_for(resident, "the guard switched off policy 'broken' of table 't'")
            ended = time.monotonic()
            assert '"policy": "broken"' in wait_for(monitor, "GUARD_TRIPPED")
    assert off.read().skips("t", "broken")
    assert running.harmed
    assert ended - running.harmed < 3


def await_monitor(lab: Lab, monitor: subprocess.Popen[bytes]) -> None:
    """Wait until it prints what happens; by then `emptcp run` has looked at the policies, too."""
    for _ in range(20):
        with between(lab):
            if select.select([monitor.stdout], [], [], 1)[0]:
                return
    pytest.fail("the monitor prints nothing")


@contextmanager
def process(*words: str, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "emptcp.cli.main", *words]
    made = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env)
    try:
        yield made
    finally:
        made.terminate()
        made.wait(30)
        assert made.stdout
        made.stdout.close()


def wait_for(made: subprocess.Popen[bytes], text: str, seconds: float = 30) -> str:
    """Return what was said, up to `text` at least."""
    assert made.stdout
    return read_up_to(made.stdout.fileno(), text, seconds)


def read_up_to(descriptor: int, text: str, seconds: float = 30) -> str:
    said, deadline = "", time.monotonic() + seconds
    while text not in said:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"'{text}' was not said, but: {said}"
        read = os.read(descriptor, 4096)
        assert read, f"it ended, and said: {said}"
        said += read.decode()
    return said


@pytest.mark.soon
@pytest.mark.usefixtures("installed", "usual")
def test_a_strangers_broken_actor_is_switched_off_on_an_end_host(
    lab: Lab, emptcp: Command, write: Callable[[str], str]
) -> None:
    with between(lab) as running:
        path = write(POLICY.format(device="path*"))
        done = emptcp("apply", path, "--netns", lab.b.netns)
        ended = time.monotonic()
    assert done.code == 1, done
    assert "the guard switched off policy 'broken' of table 't'" in done.err
    assert "On again by: emptcp on t broken" in done.err
    assert off.read().skips("t", "broken")
    assert "      guard: switched off once, " in emptcp("list", "t").out
    (program, *_) = json.loads(emptcp("list", "t", "--json").out)["tables"][0]["programs"]
    guard = program["policies"][0]["guard"]
    assert guard["trips"] == 1
    assert guard["last"] == pytest.approx(time.time(), abs=30)
    assert all(f"{name} {count}" in done.err for name, count in guard["seen"].items())
    told = emptcp("doctor").out
    assert re.search(r"problem +guard +the guard switched off policy 'broken'", told)
    assert "Mend it, then run: emptcp on t broken" in told
    assert running.harmed
    assert ended - running.harmed < 2


@pytest.mark.soon
@pytest.mark.usefixtures("installed")
def test_a_strangers_broken_actor_is_switched_off_on_a_router_by_the_ends_complaints(
    hop: tuple[str, str, str], emptcp: Command, write: Callable[[str], str]
) -> None:
    client, router, server = hop
    with traffic(client, server, "10.9.1.1") as running:
        path = write(POLICY.format(device="left*"))
        done = emptcp("apply", path, "--netns", router, "--guard-window", "30")
        ended = time.monotonic()
    assert done.code == 1, done
    assert "RST with MP_TCPRST (middlebox)" in done.err
    assert off.read().skips("t", "broken")
    assert running.harmed
    assert ended - running.harmed < 2


@pytest.mark.soon
@pytest.mark.usefixtures("usual")
def test_what_no_guard_is_for_is_not_waited_for(
    lab: Lab, emptcp: Command, write: Callable[[str], str]
) -> None:
    began = time.monotonic()
    assert emptcp("apply", write(HARMLESS), "--netns", lab.a.netns).code == 0
    assert time.monotonic() - began < 15


@pytest.mark.soon
def test_a_file_says_how_long_it_is_watched(lab: Lab, emptcp: Command, write: Callable[[str], str]) -> None:
    began = time.monotonic()
    assert emptcp("apply", write(f'guard_window = "2s"\n{BACKUP}'), "--netns", lab.a.netns).code == 0
    assert 2 <= time.monotonic() - began < 15


def test_the_window_is_shown_on_a_terminal_and_ctrl_c_ends_it_alone(
    lab: Lab, emptcp: Command, write: Callable[[str], str]
) -> None:
    path = write(BACKUP)
    environment = {name: value for name, value in os.environ.items() if name != "EMPTCP_GUARD_WINDOW"}
    terminal, command = pty.openpty()
    words = [sys.executable, "-m", "emptcp.cli.main", "apply", path, "--netns", lab.a.netns]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=command, env=environment) as made:
        os.close(command)
        try:
            read_up_to(terminal, "watching over table 't': 2")
            made.send_signal(signal.SIGINT)
            said = read_up_to(terminal, "stays in force")
            assert made.wait(10) == 0
        finally:
            made.kill()
            os.close(terminal)
    assert "not watched any longer" in said
    assert "Traceback" not in said
    assert "set_backup" in emptcp("list", "t").out


@pytest.mark.soon
@pytest.mark.usefixtures("usual")
def test_a_resident_process_is_handed_the_watch(
    lab: Lab, emptcp: Command, write: Callable[[str], str]
) -> None:
    with process("run", env=dict(os.environ)) as resident:
        wait_for(resident, "ready")
        began = time.monotonic()
        done = emptcp("apply", write(BACKUP), "--netns", lab.a.netns)
        assert time.monotonic() - began < 15
    assert done.code == 0
    assert f"'emptcp run', process {resident.pid}, guards table 't'" in done.err


@pytest.mark.usefixtures("installed")
def test_monitor_tells_of_what_an_apply_switched_off(
    lab: Lab, emptcp: Command, write: Callable[[str], str], tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    with process("monitor", "--json", "--netns", lab.b.netns, env=environment) as monitor:
        await_monitor(lab, monitor)
        with between(lab):
            path = write(POLICY.format(device="path*"))
            assert emptcp("apply", path, "--netns", lab.b.netns, "--guard-window", "30").code == 1
        said = wait_for(monitor, '"policy": "broken"')
    assert "GUARD_TRIPPED" in said


@pytest.mark.soon
@pytest.mark.usefixtures("installed")
def test_a_connection_that_falls_back_without_a_word_under_a_router_is_noticed_by_its_data(
    hop: tuple[str, str, str], emptcp: Command, write: Callable[[str], str]
) -> None:
    client, router, server = hop
    namespace.ip(["mptcp", "endpoint", "flush"], netns=server)
    with traffic(client, server, "10.9.1.1", subflows=0) as running:
        path = write(POLICY.format(device="left*"))
        done = emptcp("apply", path, "--netns", router, "--guard-window", "30")
        ended = time.monotonic()
    assert done.code == 1, done
    assert "data without DSS" in done.err
    assert off.read().skips("t", "broken")
    assert running.harmed
    assert ended - running.harmed < 2


@pytest.mark.parametrize("chosen", [True, False], ids=["touched", "untouched"])
def test_only_complaints_on_connections_that_the_policy_can_touch_are_its_doing(
    hop: tuple[str, str, str], emptcp: Command, write: Callable[[str], str], chosen: bool
) -> None:
    """A RST of a connection that something else broke, while the policy works on another's packets."""
    client, router, server = hop
    with traffic(client, server, "10.9.1.1") as running:
        port = running.client.getpeername()[1]
        path = write(SELECTING.format(port=port))
        thread = once_in_force("t", lambda: complain(client, port if chosen else port - 1))
        done = emptcp("apply", path, "--netns", router, "--guard-window", "8")
        thread.join(60)
        heard = HEARD in done.err
    assert (done.code, heard) == (int(chosen), chosen), done
    assert off.read().skips("t", "slow") == chosen


def once_in_force(table: str, do: Callable[[], object]) -> threading.Thread:
    """Do something beside the test as soon as a table is in force: its window begins then."""

    def wait_and_do() -> None:
        wait_until(lambda: table in tables.names())
        do()

    thread = threading.Thread(target=wait_and_do)
    thread.start()
    return thread


def apply_before(
    emptcp: Command, path: str, netns: str, begins: AbstractContextManager[Traffic], window: int = 30
) -> tuple[Said, float, float]:
    """Apply a policy, and let traffic begin as soon as it is in force.

    Return how `apply` ended, when the traffic was first harmed (0: never), and when `apply` ended.
    """
    with ExitStack() as stack:
        others: list[Traffic] = []
        late = once_in_force("t", lambda: others.append(stack.enter_context(begins)))
        done = emptcp("apply", path, "--netns", netns, "--guard-window", str(window))
        ended = time.monotonic()
        late.join(60)
    (begun,) = others
    return done, begun.harmed, ended


def complain(client: str, port: int) -> None:
    """Send RSTs of "middlebox interference" by the router for four seconds."""
    packet = build(
        flags="R",
        options=[MpTcpReset(reason=6)],
        link="none",
        src="10.8.1.1",
        sport=40000,
        dst="10.9.1.1",
        dport=port,
    )
    with Injector(namespaces.resolve(client)) as injector:
        for _ in range(40):
            injector.send(packet)
            time.sleep(0.1)


def test_a_backup_under_traffic_is_not_switched_off(
    lab: Lab, emptcp: Command, write: Callable[[str], str]
) -> None:
    with between(lab):
        done = emptcp("apply", write(BACKUP), "--netns", lab.a.netns, "--guard-window", "4")
    assert done.code == 0, done
    assert not off.read().skips("t", "slow")


def test_a_thousand_connections_to_a_plain_tcp_server_switch_nothing_off(
    lab: Lab, emptcp: Command, write: Callable[[str], str]
) -> None:
    address = lab.paths[1].b.address(4)
    server = lab.b.call(lambda: socket.create_server((address, 0), backlog=128))
    failed: list[OSError] = []
    before = lab.a.counters()["MPTcpExtMPCapableFallbackSYNACK"]

    def connect() -> None:
        namespaces.enter(namespaces.resolve(lab.a.netns))
        try:
            for _ in range(1000):
                with mptcp_socket(address, timeout=30) as client:
                    client.connect(server.getsockname())
                    server.accept()[0].close()
        except OSError as error:
            failed.append(error)

    # The policy works on another connection's packets meanwhile, so harm would be laid at its door.
    with server, between(lab):
        thread = threading.Thread(target=connect)
        thread.start()
        done = emptcp("apply", write(BACKUP), "--netns", lab.a.netns, "--guard-window", "8")
        in_time = not thread.is_alive()
        thread.join(60)
    assert in_time
    assert not failed
    assert done.code == 0, done
    assert lab.a.counters()["MPTcpExtMPCapableFallbackSYNACK"] - before == 1000


@pytest.mark.soon
@pytest.mark.parametrize("touched", [True, False], ids=["touched", "untouched"])
@pytest.mark.usefixtures("installed")
def test_only_a_fallback_of_a_connection_that_the_policy_can_touch_is_its_doing(
    emptcp: Command, write: Callable[..., str], touched: bool
) -> None:
    """Another table's policy makes a connection fall back, while this one works on it, or on another."""
    with (
        two_hosts([LabPath(100e6, 0.01)], link="veth", name=f"t{os.getpid()}f") as lab,
        between(lab) as spared,
    ):
        selected = f"subflow(dport={spared.client.getpeername()[1]})"
        breaking = write(BREAKING.format(port=spared.client.getpeername()[1]), "breaking.toml")
        assert emptcp("apply", breaking, "--netns", lab.b.netns).code == 0
        working = write(WORKING.format(when=f"not {selected}" if touched else selected))
        done, harmed, ended = apply_before(emptcp, working, lab.b.netns, between(lab), window=9)
        fell = lab.b.counters()["MPTcpExtDssFallback"]
    assert harmed
    assert fell >= 1
    assert (done.code, FELL_BACK in done.err) == (int(touched), touched), done
    assert off.read().skips("t", "works") == touched
    assert not touched or ended - harmed < 2


@pytest.mark.soon
def test_packets_that_a_router_spoils_switch_off_who_did_it(
    hop: tuple[str, str, str],
    emptcp: Command,
    write: Callable[[str], str],
    writes_raw: Callable[[int, str], None],
) -> None:
    client, router, server = hop
    writes_raw(WINDOW, "ingress")
    Host("client", client).call(lambda: offload.turn_off(["left1", "left2"]))
    with traffic(client, server, "10.9.1.1") as running:
        path = write(POLICY.format(device="left*"))
        done = emptcp("apply", path, "--netns", router, "--guard-window", "30")
        ended = time.monotonic()
    assert done.code == 1, done
    assert SPOILT in done.err
    assert off.read().skips("t", "broken")
    assert running.harmed
    assert ended - running.harmed < 2


def test_packets_that_an_end_host_spoils_before_their_checksum_is_filled_in_switch_off_too(
    lab: Lab,
    emptcp: Command,
    write: Callable[[str], str],
    writes_raw: Callable[[int, str], None],
) -> None:
    writes_raw(CHECKSUM, "egress")
    with between(lab):
        path = write(POLICY.format(device="path*").replace("ingress", "egress"))
        done = emptcp("apply", path, "--netns", lab.a.netns, "--guard-window", "30")
    assert done.code == 1, done
    assert SPOILT in done.err


@pytest.mark.soon
def test_packets_that_an_end_host_spoils_as_they_come_in_switch_off_who_is_shown_to_do_it(
    lab: Lab,
    emptcp: Command,
    write: Callable[[str], str],
    writes_raw: Callable[[int, str], None],
) -> None:
    writes_raw(WINDOW, "ingress")
    lab.a.call(lambda: offload.turn_off([path.a.device for path in lab.paths]))
    with between(lab) as running:
        path = write(POLICY.format(device="path*"))
        done = emptcp("apply", path, "--netns", lab.b.netns, "--guard-window", "30")
        ended = time.monotonic()
    assert done.code == 1, done
    assert SPOILT in done.err
    assert running.harmed
    assert ended - running.harmed < 2


def test_packets_that_come_wrong_to_a_router_are_nobodys_doing_there(
    hop: tuple[str, str, str], emptcp: Command, write: Callable[[str], str]
) -> None:
    client, router, server = hop
    with traffic(client, server, "10.9.1.1") as running:
        port = running.client.getpeername()[1]
        before = Host("server", server).counters()["TcpInCsumErrors"]
        thread = once_in_force("t", lambda: send_wrong(client, port))
        path = write(SELECTING.format(port=port))
        done = emptcp("apply", path, "--netns", router, "--guard-window", "8")
        thread.join(60)
        came = Host("server", server).counters()["TcpInCsumErrors"] - before
    assert came == 40  # they went through the router, where the policy worked on them
    assert done.code == 0, done
    assert not off.read().skips("t", "slow")


@pytest.mark.soon
@pytest.mark.parametrize("backend", ["xdp", "xdp-generic"])
def test_packets_that_a_router_spoils_before_anybody_sees_them_are_found_out_by_a_trial(
    hop: tuple[str, str, str],
    emptcp: Command,
    write: Callable[[str], str],
    writes_raw: Callable[[int, str], None],
    backend: str,
) -> None:
    """From a subflow's first packet on, at XDP: they are heard behind it, and seem to come in wrong."""
    client, router, server = hop
    writes_raw(WINDOW, "ingress")
    Host("client", client).call(lambda: offload.turn_off(["left1", "left2"]))
    path = write(AT_XDP.format(device="left*", backend=backend))
    done, harmed, ended = apply_before(emptcp, path, router, traffic(client, server, "10.9.1.1", 0))
    assert done.code == 1, done
    assert SPOILT in done.err
    assert off.read().skips("t", "broken")
    assert harmed
    assert ended - harmed < 2


@pytest.mark.soon
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("down", [True, False], ids=["down", "up"])
@pytest.mark.parametrize(("engine", "backend"), [("fused", "xdp"), ("tail", "xdp-generic")])
@pytest.mark.usefixtures("installed")
def test_data_that_nobody_ever_sees_mapped_on_a_router_is_found_out_by_a_trial(
    hop: tuple[str, str, str],
    emptcp: Command,
    write: Callable[[str], str],
    engine: str,
    backend: str,
    down: bool,
    number: int,
) -> None:
    """From a connection's first data on, at XDP: it falls back, and no end complains."""
    client, router, server = hop
    namespace.ip(["mptcp", "endpoint", "flush"], netns=server)
    Host("client", client).call(lambda: offload.turn_off(["left1"]))
    Host("server", server).call(lambda: offload.turn_off(["right1"]))
    device = "right1" if down else "left1"
    path = write(FIRST_DATA.format(device=device, engine=engine, backend=backend, number=number))
    done, harmed, ended = apply_before(emptcp, path, router, traffic(client, server, "10.9.1.1", 0, down))
    assert done.code == 1, done
    assert "data without DSS" in done.err
    assert harmed
    assert ended - harmed < 2


@pytest.mark.soon
@pytest.mark.usefixtures("installed")
def test_data_that_an_end_host_sends_unmapped_from_the_first_on_is_found_out_by_a_trial(
    emptcp: Command, write: Callable[[str], str]
) -> None:
    """The other end falls back, and only there it is counted."""
    with two_hosts([LabPath(100e6, 0.01)], link="veth", name=f"t{os.getpid()}o") as lab:
        begins = traffic(lab.a.netns, lab.b.netns, lab.paths[0].b.address(4), 0, down=True)
        path = write(POLICY.format(device="path*").replace("ingress", "egress"))
        done, harmed, ended = apply_before(emptcp, path, lab.b.netns, begins)
    assert done.code == 1, done
    assert "data without DSS" in done.err
    assert harmed
    assert ended - harmed < 2


@pytest.mark.parametrize(
    ("where", "hook", "backend"),
    [
        ("client", "ingress", "tc"),
        ("client", "ingress", "xdp"),
        ("server", "egress", "tc"),
        ("router", "ingress", "tc"),
        ("router", "ingress", "xdp"),
    ],
)
def test_acks_alone_that_lose_their_dss_switch_off(
    hop: tuple[str, str, str],
    emptcp: Command,
    write: Callable[[str], str],
    where: str,
    hook: str,
    backend: str,
) -> None:
    """No end complains, and nothing falls back: the connection stands, until the policy is off."""
    netns = dict(zip(("client", "router", "server"), hop, strict=True))
    device = "left*" if where == "client" else "right*"
    with traffic(netns["client"], netns["server"], "10.9.1.1") as running:
        path = write(SILENCING.format(hook=hook, backend=backend, device=device))
        done = emptcp("apply", path, "--netns", netns[where], "--guard-window", "30")
        assert done.code == 1, done
        assert RESENT in done.err
        before = running.received
        wait_until(lambda: running.received > before + 1_000_000)


@pytest.mark.parametrize(
    ("number", "where", "hook", "backend", "heard"),
    [
        (DATA_ACK, "client", "ingress", "tc", RESENT),
        (DATA_ACK, "router", "ingress", "xdp", RESENT),
        (DSN, "client", "egress", "tc", RESENT),
        (DSN, "server", "ingress", "tc", RESENT),
        (SUBFLOW_SEQ, "server", "ingress", "xdp", RESET),
        (SUBFLOW_SEQ, "router", "ingress", "tc", RESET),
        (LENGTH, "client", "egress", "tc", RESET),
        (LENGTH, "router", "ingress", "xdp", RESET),
    ],
)
def test_a_dss_that_is_changed_switches_off_who_is_shown_to_do_it(
    hop: tuple[str, str, str],
    changes_dss: None,
    emptcp: Command,
    write: Callable[[str], str],
    number: int,
    where: str,
    hook: str,
    backend: str,
    heard: str,
) -> None:
    netns = dict(zip(("client", "router", "server"), hop, strict=True))
    ours = {"client": "left*", "server": "right*", "router": "right*" if number == DATA_ACK else "left*"}
    policy = FIRST_DATA.format(device=ours[where], engine="fused", backend=backend, number=number)
    with traffic(netns["client"], netns["server"], "10.9.1.1"):
        path = write(policy.replace("ingress", hook))
        done = emptcp("apply", path, "--netns", netns[where], "--guard-window", "30")
    assert done.code == 1, done
    assert heard in done.err


@pytest.mark.parametrize("backend", ["xdp", "tc"])
def test_plain_tcp_by_a_router_makes_the_policy_be_tried_and_nothing_be_switched_off(
    hop: tuple[str, str, str],
    emptcp: Command,
    write: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
) -> None:
    client, router, server = hop
    tried: list[bool] = []
    ends_mptcp = Spoilers.ends_mptcp

    def noted(*asked: Any) -> bool:
        tried.append(ends_mptcp(*asked))
        return tried[-1]

    monkeypatch.setattr(Spoilers, "ends_mptcp", noted)
    Host("client", client).call(lambda: offload.turn_off(["left1", "left2"]))
    with traffic(client, server, "10.9.1.1", every=0.5):
        thread = once_in_force("t", lambda: connect_plainly(client, server, "10.9.1.1", 1000))
        working = AT_XDP.replace("mark()", "rate_limit(rate=1gbit, mode=police)")
        path = write(working.format(device="left*", backend=backend))
        done = emptcp("apply", path, "--netns", router, "--guard-window", "8")
        thread.join(60)
    assert done.code == 0, done
    assert not off.read().skips("t", "broken")
    assert tried
    assert not any(tried)


def connect_plainly(client: str, server: str, address: str, count: int) -> None:
    """Connect to a plain TCP server, one time after the other, and send some packets each time."""
    listener = Host("server", server).call(lambda: socket.create_server((address, 0), backlog=128))
    namespaces.enter(namespaces.resolve(client))
    with listener:
        for _ in range(count):
            with mptcp_socket(address, timeout=30) as made:
                made.connect(listener.getsockname())
                with listener.accept()[0] as accepted:
                    for _ in range(4):
                        made.sendall(bytes(300))
                        receive_exactly(accepted, 300)


def test_long_packets_that_a_router_spoils_are_looked_at_too(
    hop: tuple[str, str, str],
    emptcp: Command,
    write: Callable[[str], str],
    writes_raw: Callable[[int, str], None],
) -> None:
    """Of a network whose packets have 9,000 bytes."""
    client, router, server = hop
    for name, prefix in ((client, "left"), (router, "left"), (router, "right"), (server, "right")):
        for number in (1, 2):
            namespace.ip(["link", "set", f"{prefix}{number}", "mtu", "9000"], netns=name)
    writes_raw(WINDOW, "egress")
    Host("client", client).call(lambda: offload.turn_off(["left1", "left2"]))
    with traffic(client, server, "10.9.1.1"):
        path = write(POLICY.format(device="right*").replace("ingress", "egress"))
        done = emptcp("apply", path, "--netns", router, "--guard-window", "30")
    assert done.code == 1, done
    assert SPOILT in done.err


def test_who_is_shown_to_spoil_packets_explains_what_the_kernel_counts(
    lab: Lab,
    emptcp: Command,
    write: Callable[..., str],
    writes_raw: Callable[[int, str], None],
) -> None:
    """Another table's policy spoils what comes in, while this one works on the same packets."""
    writes_raw(WINDOW, "ingress")
    lab.a.call(lambda: offload.turn_off([path.a.device for path in lab.paths]))
    before = lab.b.counters()["TcpInCsumErrors"]
    breaking = write(AT_XDP.format(device="path*", backend="xdp").replace('"t"', '"u"'), "breaking.toml")
    assert emptcp("apply", breaking, "--netns", lab.b.netns).code == 0
    working = write(WORKING.format(when="not packet_type('syn')"))
    with ExitStack() as stack:
        late = once_in_force("t", lambda: stack.enter_context(between(lab)))
        done = emptcp("apply", working, "--netns", lab.b.netns, "--guard-window", "8")
        late.join(60)
    assert lab.b.counters()["TcpInCsumErrors"] - before >= 5
    assert done.code == 0, done
    assert not off.read().skips("t", "works")


def test_packets_that_come_wrong_to_an_end_host_are_not_the_doing_of_what_works_on_its_own(
    hop: tuple[str, str, str], emptcp: Command, write: Callable[[str], str]
) -> None:
    client, _, server = hop
    with traffic(client, server, "10.9.1.1") as running:
        port = running.client.getpeername()[1]
        before = Host("server", server).counters()["TcpInCsumErrors"]
        thread = once_in_force("t", lambda: send_wrong(client, port))
        path = write(BACKUP.replace("path1", "right1"))
        done = emptcp("apply", path, "--netns", server, "--guard-window", "8")
        thread.join(60)
        came = Host("server", server).counters()["TcpInCsumErrors"] - before
    assert came == 40
    assert done.code == 0, done
    assert not off.read().skips("t", "slow")


def send_wrong(client: str, port: int) -> None:
    """Send data with a wrong checksum by the router for four seconds."""
    ends: dict[str, Any] = {"src": "10.8.1.1", "sport": 40000, "dst": "10.9.1.1", "dport": port}
    right = build(link="none", options=[Dss(data_ack=1, dsn=1, data_length=200)], payload=bytes(200), **ends)
    wrong = right[:-1] + b"\1"
    with Injector(namespaces.resolve(client)) as injector:
        for _ in range(40):
            injector.send(wrong)
            time.sleep(0.1)
