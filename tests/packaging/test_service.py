# SPDX-License-Identifier: Apache-2.0
"""The service under a systemd of its own: unit and command as the wheel brings them, in a container."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from .conftest import of_sdk, run

# As root: systemd is booted in a container of namespaces.
pytestmark = [pytest.mark.packaging, pytest.mark.timeout(240)]

BOOT = Path(__file__).with_name("systemd.sh")
until = partial(of_sdk("waiting")["wait_until"], seconds=60)
POLICIES = """
table = "home"

[path.fast]
dev = "wan0"

[path.slow]
dev = "lte0"

[[policy]]
name = "count"
hook = "egress"
dev = "wan0"
do = ["record('packets')"]

[[policy]]
name = "count there"
hook = "ingress"
netns = "there"
dev = "wan1"
do = ["record('bytes')"]

[[controller]]
name = "ecf"
use = "ecf"
paths = ["fast", "slow"]
"""
TICKS = "controller 'ecf' of table 'home' ticks every"
# The service sees neither pytest's folder in /tmp, nor a Python in somebody's home.
DROP_IN = """
[Service]
ExecStart=
ExecStart={environment}/bin/emptcp run /etc/emptcp/tables
ProtectHome=tmpfs
BindReadOnlyPaths={environment} {python}
"""


class Container:
    """A machine whose first process is systemd, with an environment that has emptcp."""

    def __init__(self, init: int, environment: Path) -> None:
        self.inside = ("nsenter", "--target", str(init), "--all")
        self.root = Path(f"/proc/{init}/root")
        self.environment = environment
        self.table = self.root / "etc/emptcp/tables/home.toml"

    def __call__(self, *command: str | Path) -> str:
        return run(*self.inside, *command).stdout

    def emptcp(self, *words: str) -> str:
        return self(self.environment / "bin/emptcp", *words)

    def is_up(self) -> bool:
        command = (*self.inside, "systemctl", "is-system-running")
        return subprocess.run(command, capture_output=True, check=False).stdout == b"running\n"

    def property(self, name: str) -> str:
        """Return what systemd has of the service under a name."""
        return self("systemctl", "show", "--property", name, "--value", "emptcpd").strip()

    def journal(self) -> str:
        return self("journalctl", "--unit", "emptcpd", "--output", "cat")

    def pinned(self) -> set[tuple[str, int, int]]:
        """Return the programs, and links with their programs, that pins hold."""
        rows = [(kind, row) for kind in ("prog", "link") for row in json.loads(self("bpftool", "-jf", kind))]
        return {(kind, row["id"], row.get("prog_id", 0)) for kind, row in rows if row.get("pinned")}


@pytest.fixture
def container(environment: Callable[[str], Path]) -> Iterator[Container]:
    """Boot it, with two devices and the unit; it ends with its standard input, whatever happens."""
    folder = environment("emptcp[standard]").parent
    command = ("unshare", "--mount", "sh", BOOT, "outside", folder)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True) as process:
        assert process.stdout
        made = Container(int(process.stdout.readline()), folder)
        until(made.is_up)
        made("ip", "netns", "add", "there")
        for device, peer in (("wan0", "wan1"), ("lte0", "lte1")):
            made("ip", "link", "add", device, "type", "veth", "peer", "name", peer, "netns", "there")
        made("systemctl", "link", folder / "lib/systemd/system/emptcpd.service")
        drop_in = made.root / "etc/systemd/system/emptcpd.service.d/override.conf"
        drop_in.parent.mkdir()
        drop_in.write_text(DROP_IN.format(environment=folder, python=sys.base_prefix))
        made("systemctl", "daemon-reload")
        made.table.parent.mkdir(parents=True)
        made.table.write_text(POLICIES)
        yield made
        print(made.journal())


def test_the_service_starts_reloads_comes_back_and_ends(container: Container) -> None:
    container("systemctl", "start", "emptcpd")
    in_force = container.emptcp("list")
    assert "record(what=[packets])" in in_force
    until(lambda: TICKS in container.journal())

    container.emptcp("remove", "home")
    container("systemctl", "reload", "emptcpd")
    until(lambda: container.emptcp("list") == in_force)

    container.table.write_text("table = ")
    until(lambda: "is not applied, and what is in force stays" in container.journal())
    pinned = container.pinned()
    assert pinned
    before = container.journal().count(TICKS)
    container("systemctl", "kill", "--kill-who", "main", "--signal", "KILL", "emptcpd")
    until(lambda: container.property("NRestarts") == "1" and container.property("SubState") == "running")
    until(lambda: container.journal().count(TICKS) > before)
    assert container.pinned() == pinned

    container("systemctl", "stop", "emptcpd")
    assert (container.property("ActiveState"), container.property("Result")) == ("inactive", "success")
    assert container.pinned() == pinned
    assert container.emptcp("list") == in_force
