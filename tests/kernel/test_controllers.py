# SPDX-License-Identifier: Apache-2.0
"""Controllers within ``emptcp run``, on live connections: what they set, and what outlives whom."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from emptcp.chain import sockets
from emptcp.hooks import namespaces
from emptcp.lab.sockets import listen, mptcp_socket, wildcard
from emptcp.lab.topology import Lab, two_hosts
from emptcp.mptcp.sockets import Subflow, SubflowReader
from emptcp_sdk.testing import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

MANIFEST = """
schema = 1
abi = 1
name = "loops"
module = ""
[[controller]]
name = "obey"
class = "someones_loops:Obey"
sets = "backup"
[[controller.parameter]]
name = "order"
type = "string(200)"
required = true
[[controller]]
name = "pace"
class = "someones_loops:Obey"
[[controller.parameter]]
name = "order"
type = "string(200)"
required = true
[[controller]]
name = "spin"
class = "someones_loops:Spin"
sets = "backup"
[[controller.parameter]]
name = "order"
type = "string(200)"
required = true
[[controller]]
name = "stumble"
class = "someones_loops:Stumble"
sets = "backup"
[[controller]]
name = "doors"
class = "someones_loops:Doors"
sets = "block"
[[controller.parameter]]
name = "order"
type = "string(200)"
required = true
"""
PYTHON = '''
import pathlib
import time

from emptcp.api import Controller


class Obey(Controller):
    """Do to the subflows of path two what a file says, and tell each tick in another."""

    interval = 0.05

    def tick(self, connections):
        order = pathlib.Path(self.order)
        with open(self.order + ".ticks", "a") as ticks:
            print(time.monotonic(), len(connections), file=ticks)
        for setter, value in (line.split("=", 1) for line in order.read_text().splitlines()):
            for connection in connections:
                for subflow in connection.subflows.on("two"):
                    setattr(subflow, setter, eval(value))


class Spin(Controller):
    """Make the second path backup, and never answer again once a file says so."""

    interval = 0.05

    def tick(self, connections):
        while pathlib.Path(self.order).read_text() == "spin":
            while True:
                pass
        for connection in connections:
            for subflow in connection.subflows.on("two"):
                subflow.backup = True


class Doors(Controller):
    """Do with path two what a file says."""

    interval = 0.05

    def tick_connection(self, connection):
        order = pathlib.Path(self.order + ".doors").read_text()
        if order:
            getattr(connection, order)("two")


class Stumble(Controller):
    """Set something, and raise."""

    interval = 0.05

    def tick_connection(self, connection):
        connection.subflows.on("two")[0].backup = True
        raise KeyError("no such thing")
'''
TABLE = """
table = "loops"
[path.one]
dev = "{one}"
[path.two]
dev = "{two}"
"""
OBEY = """
[[controller]]
name = "obey"
use = "obey"
paths = ["one", "two"]
netns = "{netns}"
with = {{ order = "{order}" }}
"""
PACE = OBEY.replace('"obey"', '"pace"')
"""The same with all setters: rates need programs on sockets."""
DOORS = OBEY.replace('"obey"', '"doors"')
BROKEN = """
[[controller]]
name = "broken"
use = "{use}"
paths = ["two"]
netns = "{netns}"
on_failure = "{on_failure}"
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with two_hosts(link="veth", name=f"c{os.getpid()}") as built:
        yield built


class Machine:
    """An emptcp of its own, with the stranger's plugin, and its ``emptcp run``."""

    def __init__(self, folder: Path, lab: Lab) -> None:
        self.folder, self.lab = folder, lab
        self.order = folder / "order"
        self.order.write_text("")
        site = folder / "site"
        package, info = site / "someones_loops", site / "loops-1.0.dist-info"
        package.mkdir(parents=True)
        info.mkdir()
        (package / "__init__.py").write_text(PYTHON)
        (package / "emptcp.toml").write_text(MANIFEST)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loops\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[emptcp.plugins]\nloops = someones_loops\n")
        (info / "RECORD").write_text(
            "".join(f"{one.relative_to(site)},,\n" for one in site.rglob("*") if one.is_file())
        )
        run = folder / f"emt{os.getpid()}-run"
        more = {"EMPTCP_RUN": str(run), "EMPTCP_ETC": str(folder / "etc"), "PYTHONPATH": str(site)}
        self.environment = {**os.environ, **more}
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self("plugins", "enable", "loops")

    def __call__(self, *words: str) -> str:
        command = [sys.executable, "-m", "emptcp.cli.main", *words]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def apply(self, *controllers: str) -> str:
        """Apply the table with these controllers."""
        one, two = (path.a.device for path in self.lab.paths)
        told = {"netns": self.lab.a.netns, "order": str(self.order), "one": one, "two": two}
        text = TABLE.format(**told) + "".join(controllers).replace("{{", "{").replace("}}", "}")
        for name, value in told.items():
            text = text.replace("{" + name + "}", value)
        file = self.folder / "table.toml"
        file.write_text(text)
        return self("apply", str(file), "--guard-window", "0")

    def run(self) -> None:
        """Start ``emptcp run`` and wait until it is ready."""
        command = [sys.executable, "-m", "emptcp.cli.main", "run", "--no-guard"]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        self.says("ready")

    def says(self, text: str) -> None:
        """Wait until the process has said something."""
        wait_until(lambda: text in self.log.read_text(), told=self.log.read_text)

    def pid(self, controller: str) -> int:
        """Return the process that a controller was started as last."""
        found = re.findall(rf"controller '{controller}' .* runs as process (\d+)", self.log.read_text())
        return int(found[-1])

    def ticks(self) -> list[float]:
        """Return when the obedient controller ticked."""
        path = Path(f"{self.order}.ticks")
        lines = path.read_text().splitlines() if path.exists() else []
        return [float(line.split()[0]) for line in lines if line]

    def is_quiet(self) -> bool:
        """Return whether the obedient controller ticks no more."""
        before = len(self.ticks())
        time.sleep(0.5)
        return len(self.ticks()) == before

    def connects_once(self) -> bool:
        """Open and close a connection."""
        with Connection(self.lab):
            return True

    @contextmanager
    def monitor(self) -> Iterator[Path]:
        """Have ``emptcp monitor`` write what it sees."""
        path = self.folder / "events"
        command = [sys.executable, "-m", "emptcp.cli.main", "monitor", "--netns", self.lab.a.netns]
        with open(path, "wb") as out:
            process = subprocess.Popen(command, env=self.environment, stdout=out, stderr=out)
        try:
            yield path
        finally:
            process.terminate()
            process.wait(20)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End ``emptcp run``."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None


@pytest.fixture
def machine(tmp_path: Path, lab: Lab) -> Iterator[Machine]:
    made = Machine(tmp_path, lab)
    yield made
    if made.process is not None:
        made.process.kill()
        made.process.wait()
    made("remove", "loops", "--keep-effects")


class Connection(ExitStack):
    """A connection over both paths, idle unless it is told to talk."""

    def __init__(self, lab: Lab, subflows: int = 2) -> None:
        super().__init__()
        self.lab = lab
        self.reader = self.enter_context(SubflowReader())
        address = lab.paths[0].b.address(4)
        listener = self.enter_context(lab.b.call(lambda: listen(wildcard(address), timeout=30)))
        self.client = self.enter_context(lab.a.call(lambda: mptcp_socket(address, timeout=30)))
        self.client.connect((address, listener.getsockname()[1]))
        self.server: socket.socket = self.enter_context(listener.accept()[0])
        self.port = listener.getsockname()[1]
        self.client.sendall(b"x")
        wait_until(lambda: len(self.subflows()) == subflows)

    def subflows(self) -> list[Subflow]:
        """Return the subflows of host a, by path."""
        found = self.reader.read(namespaces.resolve(self.lab.a.netns))
        ours = [one for one in found if one.open and one.remote_port == self.port]
        return sorted(ours, key=lambda one: str(one.local))

    def pacing(self) -> list[str]:
        """Return the most that the sockets of host a are paced at, by path; empty where nothing limits it."""
        said = self.lab.a.run(["ss", "-tinH", f"( dport = {self.port} )"]).stdout
        found = re.findall(r"(10\.\S+):\d+ +\S+:\d+ *\n.*pacing_rate \S+?bps(?:/(\S+))?", said)
        return [limit for _, limit in sorted(found)]

    def backups(self) -> list[bool]:
        """Return the bits that steer host a, by path."""
        return [one.backup for one in self.subflows()]

    def become(self, bits: list[bool]) -> None:
        """Wait, idle, until the bits are these."""
        wait_until(lambda: self.backups() == bits, told=self.backups)


@pytest.fixture
def connection(lab: Lab) -> Iterator[Connection]:
    with Connection(lab) as made:
        yield made


def prio(lab: Lab) -> int:
    """Return how many MP_PRIO host a has received."""
    lines = lab.a.run(["nstat", "-asz", "MPTcpExtMPPrioRx"]).stdout.splitlines()
    return int(lines[-1].split()[1])


def test_an_idle_subflow_becomes_backup_and_is_given_back(machine: Machine, connection: Connection) -> None:
    assert "waits for `emptcp run`" in machine.apply(OBEY)
    machine.run()
    wait_until(lambda: bool(machine.ticks()), told=machine.log.read_text)
    assert connection.backups() == [False, False]
    machine.order.write_text("backup=True\n")
    connection.become([False, True])
    assert "true" in machine("map", "list", "obey-backup")
    machine.order.write_text("backup=False\n")
    connection.become([False, False])
    machine.order.write_text("backup=True\n")
    connection.become([False, True])
    machine.order.write_text("backup=None\n")
    connection.become([False, False])
    assert machine("map", "list", "obey-backup") == ""


def test_a_rate_paces_the_socket_and_is_given_back(machine: Machine, connection: Connection) -> None:
    if sockets.missing():
        machine.apply(OBEY)
        with pytest.raises(AssertionError, match="rate_limit by mode=pacing needs what this kernel lacks"):
            machine.apply(PACE)
        return
    machine.apply(PACE)
    machine.run()
    before = connection.pacing()
    machine.order.write_text("rate=125_000\n")
    wait_until(lambda: connection.pacing() == [before[0], "1000000bps"], told=connection.pacing)
    machine.order.write_text("rate=None\n")
    wait_until(lambda: connection.pacing() == before, told=connection.pacing)
    assert machine("map", "list", "pace-rate") == ""


@pytest.fixture
def a_thousand(lab: Lab) -> Iterator[None]:
    """As many idle connections, each with a subflow on either path."""
    address, limits = lab.paths[0].b.address(4), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(5000, limits[0]), max(5000, limits[1])))
    with ExitStack() as opened:
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        listener = opened.enter_context(lab.b.call(lambda: listen(wildcard(address), timeout=30)))

        def connect() -> socket.socket:
            client = mptcp_socket(address, timeout=30)
            client.connect((address, listener.getsockname()[1]))
            client.sendall(b"x")
            return client

        for _ in range(1000):
            opened.enter_context(lab.a.call(connect))
            opened.enter_context(listener.accept()[0])
        yield


@pytest.mark.soon
@pytest.mark.timeout(240)
@pytest.mark.usefixtures("a_thousand")
def test_it_ends_soon_while_the_rates_of_a_thousand_connections_change(machine: Machine, lab: Lab) -> None:
    machine.order.write_text("rate=1e6 + time.monotonic() % 1000 * 1000\n")
    machine.apply(PACE)
    machine.run()
    with SubflowReader() as reader:
        here = namespaces.resolve(lab.a.netns)
        wait_until(lambda: len([one for one in reader.read(here) if one.open]) == 2000)
    before = len(machine.ticks())
    # Each tick sets a thousand rates, and comes only when those of the last one are in force.
    wait_until(lambda: len(machine.ticks()) >= before + 3, 60, told=machine.log.read_text)
    assert machine.process is not None
    began = time.monotonic()
    machine.process.terminate()
    assert machine.process.wait(60) == 0
    machine.process = None
    assert time.monotonic() - began < 10


def test_settings_go_with_their_table(machine: Machine, connection: Connection) -> None:
    machine.apply(OBEY)
    machine.run()
    machine.order.write_text("backup=True\n")
    connection.become([False, True])
    machine.apply()
    connection.become([False, False])
    wait_until(lambda: not Path(f"/proc/{machine.pid('obey')}").exists())


@pytest.mark.parametrize("on_failure", ["keep", "withdraw"])
def test_one_that_never_answers_is_ended_and_delays_no_other(
    machine: Machine, connection: Connection, on_failure: str
) -> None:
    spin = BROKEN.replace("{use}", "spin").replace("{on_failure}", on_failure)
    machine.apply(OBEY, spin + 'with = { order = "{order}.spin" }\n')
    order = Path(f"{machine.order}.spin")
    order.write_text("")
    machine.run()
    connection.become([False, True])
    with machine.monitor() as told:
        # It hears of controllers where it hears of the kernel's connections.
        wait_until(lambda: machine.connects_once() and bool(told.read_text()), told=machine.log.read_text)
        order.write_text("spin")
        machine.says("controller 'broken' of table 'loops' was ended: a tick took longer than")
        ended = time.monotonic()
        wait_until(lambda: "CONTROLLER_ENDED" in told.read_text(), told=told.read_text)
    # It kept a processor busy for a second at least; twenty ticks of the other one were due.
    assert sum(ended - 1 < at < ended for at in machine.ticks()) >= 5
    connection.become([False, on_failure == "keep"])
    (_, two) = connection.subflows()
    left = machine("map", "list", "broken-backup")
    assert (f":{two.local_port}-" in left) if on_failure == "keep" else left == ""
    told_of = machine.log.read_text()
    assert told_of.count("was ended") == 1
    assert "its settings are kept" in told_of or on_failure == "withdraw"


def test_what_raises_sets_nothing_and_is_ended_after_three_ticks(
    machine: Machine, connection: Connection
) -> None:
    machine.apply(BROKEN.replace("{use}", "stumble").replace("{on_failure}", "keep"))
    machine.run()
    machine.says("was ended: KeyError: 'no such thing' (__init__.py:")
    assert machine.log.read_text().count("controller 'broken' of table 'loops': KeyError") == 3
    assert machine("map", "list", "broken-backup") == ""
    assert connection.backups() == [False, False]


def test_a_killed_daemon_leaves_its_settings_and_the_next_one_repeats_none(
    machine: Machine, connection: Connection, lab: Lab
) -> None:
    machine.apply(OBEY)
    machine.run()
    machine.order.write_text("backup=True\n")
    connection.become([False, True])
    machine.end(signal.SIGKILL)
    told = prio(lab)
    # Its controllers end with it, and what they set does not.
    wait_until(machine.is_quiet)
    quiet = len(machine.ticks())
    assert connection.backups() == [False, True]
    machine.log.write_text("")
    machine.run()
    wait_until(lambda: len(machine.ticks()) > quiet + 20, told=machine.log.read_text)
    assert prio(lab) == told
    assert connection.backups() == [False, True]
    machine.order.write_text("backup=None\n")
    connection.become([False, False])


def test_only_subflows_that_when_selects_are_handed_over(machine: Machine, connection: Connection) -> None:
    (_, two) = connection.subflows()
    when = f'when = "subflow(sport={two.local_port}) or subflow(dport={two.local_port})"\n'
    machine.apply(OBEY + when)
    machine.order.write_text("backup=len(connection.subflows) == 1\n")
    machine.run()
    connection.become([False, True])


def test_a_path_is_open_until_it_is_blocked_and_opens_again(
    machine: Machine, connection: Connection, lab: Lab
) -> None:
    order = Path(f"{machine.order}.doors")
    order.write_text("")
    machine.apply(DOORS)
    machine.run()
    machine.says("controller 'doors' of table 'loops' runs as process")
    assert machine("set", "list", "doors-block-two") == ""
    order.write_text("block")
    wait_until(lambda: machine("set", "list", "doors-block-two") != "", told=machine.log.read_text)
    # It has its subflow, which stays; once that is gone none comes back.
    assert len(connection.subflows()) == 2
    lab.a.run(["ss", "-K", f"( sport = {connection.subflows()[1].local_port} )"])
    wait_until(lambda: len(connection.subflows()) == 1)
    address, device = lab.paths[1].a.address(4), lab.paths[1].a.device
    endpoint = f"ip mptcp endpoint add {address} dev {device} subflow".split()
    lab.a.run(endpoint)
    try:
        time.sleep(2)
        assert len(connection.subflows()) == 1
        order.write_text("allow")
        wait_until(lambda: len(connection.subflows()) == 2, told=connection.subflows)
        assert machine("set", "list", "doors-block-two") == ""
    finally:
        lab.a.run(["ip", "mptcp", "endpoint", "flush"])


def test_a_change_of_the_table_starts_only_those_controllers_anew_that_it_concerns(
    machine: Machine, connection: Connection
) -> None:
    order = Path(f"{machine.order}.doors")
    order.write_text("")
    machine.apply(OBEY, DOORS)
    machine.run()
    machine.order.write_text("backup=True\n")
    connection.become([False, True])
    machine.says("controller 'doors' of table 'loops' runs as process")
    obey, doors = machine.pid("obey"), machine.pid("doors")
    machine.apply(DOORS + 'interval = "20ms"\n', OBEY)
    wait_until(lambda: machine.pid("doors") != doors, told=machine.log.read_text)
    before = len(machine.ticks())
    wait_until(lambda: len(machine.ticks()) > before + 5, told=machine.log.read_text)
    assert machine.pid("obey") == obey
    assert machine.log.read_text().count("controller 'obey' of table 'loops' runs as") == 1
    assert connection.backups() == [False, True]
    # What it sets is still put in force.
    machine.order.write_text("backup=False\n")
    connection.become([False, False])
    machine.apply(DOORS, OBEY + 'interval = "30ms"\n')
    wait_until(lambda: machine.pid("obey") != obey, told=machine.log.read_text)
