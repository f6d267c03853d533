# SPDX-License-Identifier: Apache-2.0
"""``emptcp run FILE``: files in force, changes, bad files, devices that come, and as a service."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emptcp.cli.main import _parser
from emptcp_sdk.testing import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

UNIT = Path(__file__).parents[3] / "systemd" / "emptcpd.service"
POLICY = """
table = "{table}"
[[policy]]
name = "count"
hook = "egress"
dev = "{dev}"
do = ["record({what})"]
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


@pytest.fixture
def netns() -> Iterator[str]:
    name = f"emt{os.getpid()}-files"
    ip("netns", "add", name)
    ip("-n", name, "link", "add", "wan0", "type", "veth", "peer", "name", "far0")
    yield name
    ip("netns", "delete", name)


class Machine:
    """An emptcp of its own, its policy files, and its ``emptcp run``."""

    def __init__(self, folder: Path, netns: str) -> None:
        self.folder, self.netns = folder, netns
        self.files = folder / "tables"
        self.files.mkdir()
        self.environment = {**os.environ, "EMPTCP_RUN": str(folder / f"emt{os.getpid()}-run")}
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "log"
        self.log.touch()

    def __call__(self, *words: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "emptcp.cli.main", *words]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    def write(self, name: str, table: str, *, dev: str = "wan*", what: str = "'packets'") -> Path:
        """Write a policy file, as editors do: another file takes its name."""
        path, fresh = self.files / name, self.files / "new"
        fresh.write_text(POLICY.format(table=table, dev=dev, what=what))
        return fresh.replace(path)

    def run(self, *words: str, before: tuple[str, ...] = ()) -> None:
        command = [*before, sys.executable, "-m", "emptcp.cli.main", "run", "--netns", self.netns, *words]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        self.says("ready")

    def says(self, text: str, often: int = 1) -> None:
        """Wait until the process has said something so often."""
        self.holds(lambda: self.log.read_text().count(text) >= often)

    def holds(self, what: Callable[[], bool]) -> None:
        """Wait until something holds, while the process runs."""
        wait_until(what, 40, self.log.read_text, meanwhile=self.runs)

    def runs(self) -> None:
        """Fail when the process has ended."""
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        assert self.process is not None
        self.send(number)
        process, self.process = self.process, None
        assert process.wait(30) == 0, self.log.read_text()

    def tables(self) -> dict[str, list[str]]:
        """Return the tables in force, each with the stages of its policies."""
        found = json.loads(self("list", "--json"))["tables"]
        return {
            one["name"]: [
                stage["text"]
                for program in one["programs"]
                for policy in program["policies"]
                for stage in policy["stages"]
            ]
            for one in found
        }

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
        for table in self.tables():
            self("remove", table)
        tree = self.folder / f"emt{os.getpid()}-run" / "bpf"
        if os.path.ismount(tree):
            subprocess.run(["umount", "--lazy", str(tree)], check=True, timeout=10)


@pytest.fixture
def machine(tmp_path: Path, netns: str) -> Iterator[Machine]:
    made = Machine(tmp_path, netns)
    yield made
    made.close()


def test_files_are_in_force_and_changes_are_too(machine: Machine) -> None:
    file = machine.write("a.toml", "a")
    machine.run(str(machine.files))
    assert machine.tables() == {"a": ["record(what=[packets])"]}
    machine.write("a.toml", "a", what="'bytes'")
    machine.holds(lambda: machine.tables() == {"a": ["record(what=[bytes])"]})
    # A file that comes into the folder.
    machine.write("b.toml", "b")
    machine.holds(lambda: set(machine.tables()) == {"a", "b"})
    # A bad one is told once, in one sentence, and what is in force stays.
    file.write_text('table = "a"\n[[policy]]\nname = "count"\nhok = "egress"\n')
    machine.says(f"'{file}' is not applied, and what is in force stays: {file}:4:1: ")
    time.sleep(6)  # it is tried again meanwhile
    said = machine.log.read_text()
    assert said.count("is not applied") == 1
    assert machine.tables()["a"] == ["record(what=[bytes])"]
    # SIGHUP reads all again; what somebody changed beside the files is as they say again.
    machine("remove", "b")
    machine.send(signal.SIGHUP)
    machine.holds(lambda: set(machine.tables()) == {"a", "b"})
    # One that goes takes nothing with it, and neither does the process.
    file.unlink()
    (machine.files / "b.toml").unlink()
    machine.send(signal.SIGHUP)
    machine.says("reading all files again", 2)
    machine.end()
    assert set(machine.tables()) == {"a", "b"}


def test_tables_are_removed_at_the_end_if_that_is_asked_for(machine: Machine) -> None:
    one = machine.write("one.toml", "one")
    other = machine.write("other.toml", "other")
    machine("apply", str(other), "--netns", machine.netns)
    machine.run(str(one), "--remove")
    assert set(machine.tables()) == {"one", "other"}
    machine.end(signal.SIGINT)
    assert set(machine.tables()) == {"other"}
    assert "needs" not in machine.log.read_text()


def test_what_can_not_be_run_is_refused(machine: Machine) -> None:
    assert "there is no policy file or folder '/nowhere'" in machine("run", "/nowhere", code=1)
    assert "--remove takes the tables of files out of force, and none is given" in machine(
        "run", "--remove", code=1
    )


def test_two_files_of_one_table_are_told(machine: Machine) -> None:
    first, second = machine.write("1.toml", "same"), machine.write("2.toml", "same", what="'bytes'")
    machine.run(str(machine.files))
    machine.says(f"'{second}' is of table 'same', which '{first}' owns already")
    assert machine.tables() == {"same": ["record(what=[packets])"]}
    machine.end()


def add(machine: Machine, device: str) -> None:
    ip("-n", machine.netns, "link", "add", device, "type", "veth", "peer", "name", f"f-{device}")


def test_devices_that_appear_later_are_attached(machine: Machine) -> None:
    machine.write("glob.toml", "glob", dev="lte*")
    named = machine.write("named.toml", "named", dev="ppp7")
    machine.run(str(machine.files))
    # A glob may mean nothing yet; a name that means nothing is told, and waited for.
    machine.says(f"'{named}' is not applied, and what is in force stays")
    assert machine.tables() == {"glob": []}
    for device in ("lte0", "lte1", "ppp7"):
        add(machine, device)
        machine.says(f"attached egress of {device}")
    assert machine.tables() == {"glob": ["record(what=[packets])"] * 2, "named": ["record(what=[packets])"]}
    # A device that is renamed into the glob appears as well.
    add(machine, "spare")
    ip("-n", machine.netns, "link", "set", "spare", "name", "lte2")
    machine.says("attached egress of lte2")
    machine.end()


def told(manager: socket.socket) -> str:
    assert select.select([manager], [], [], 40)[0]
    return manager.recv(4096).decode()


def test_the_service_manager_is_told(machine: Machine, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        machine.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        machine.write("a.toml", "a")
        machine.run(str(machine.files))
        assert told(manager) == "READY=1"
        machine.send(signal.SIGHUP)
        assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", told(manager))
        assert told(manager) == "READY=1"
        machine.end()
        assert told(manager) == "STOPPING=1"


def settings() -> dict[str, str]:
    lines = (line.partition("=") for line in UNIT.read_text().splitlines() if not line.startswith(("#", "[")))
    return {key: value for key, equals, value in lines if equals}


def verified(unit: Path) -> str:
    """Return what systemd finds wrong with a unit; where it is not installed, nothing."""
    if shutil.which("systemd-analyze") is None:
        return ""
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60
    )
    return done.stderr + f"ended with {done.returncode}" * bool(done.returncode)


def test_the_unit_is_what_systemd_and_the_command_understand(tmp_path: Path) -> None:
    """The file as it is shipped but for the place of the command, which is not installed for the system."""
    said, (command, *words) = settings(), settings()["ExecStart"].split()
    main_parser, _ = _parser(["run"])
    assert command == "emptcp"
    assert main_parser.parse_args(words).files == ["/etc/emptcp/tables"]
    assert (said["Type"], said["Restart"], said["KillMode"]) == ("notify", "on-failure", "mixed")
    assert said["ExecReload"] == "kill -HUP $MAINPID"
    # What is in force must outlive the process.
    assert (said["RuntimeDirectory"], said["RuntimeDirectoryPreserve"]) == ("emptcp", "yes")
    there = tmp_path / "emptcp"
    there.symlink_to("/bin/true")
    unit = tmp_path / "emptcpd.service"
    unit.write_text(UNIT.read_text().replace("ExecStart=emptcp", f"ExecStart={there}"))
    assert verified(unit) == ""


def test_the_units_capabilities_are_enough(machine: Machine) -> None:
    """Everything that a process of the service does, with nothing but what its unit leaves it."""
    names = settings()["CapabilityBoundingSet"].lower().replace("cap_", "+").split()
    bounds = ",".join(["-all", *names])
    machine.write("a.toml", "a", dev="lte*")
    machine.run(str(machine.files), before=("setpriv", "--no-new-privs", "--bounding-set", bounds))
    assert machine.process is not None
    status = Path(f"/proc/{machine.process.pid}/status").read_text()
    held = int(re.search(r"CapEff:\s+(\w+)", status)[1], 16)  # type: ignore[index]
    assert 0 < held.bit_count() <= len(names)
    add(machine, "lte0")
    machine.says("attached egress of lte0")
    machine.write("a.toml", "a", dev="lte*", what="'bytes'")
    machine.holds(lambda: machine.tables() == {"a": ["record(what=[bytes])"]})
    machine.end()
