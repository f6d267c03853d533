# SPDX-License-Identifier: Apache-2.0
"""How long others take to turn a live subflow into a backup: from the call until MP_PRIO leaves the host."""

from __future__ import annotations

import os
import re
import select
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from pathlib import Path

from emptcp.errors import EmptcpError
from emptcp.lab.host import Host
from emptcp.lab.path import Path as LabPath
from emptcp.lab.sockets import listen, mptcp_info, mptcp_socket, wildcard
from emptcp.lab.topology import Lab, two_hosts
from emptcp_bench.control.sniffer import Sniffer, listening

DAEMON = "/usr/libexec/mptcpd"
HEADER = Path("/usr/include/mptcpd/plugin.h")
PATIENCE = 20.0
SETTLE = 0.5
"""Seconds in which mptcpd tells its plugins of the addresses that there were before."""


@contextmanager
def endpoint() -> Iterator[Callable[[], float]]:
    """Yield what has ``ip mptcp endpoint change`` toggle a subflow, and returns microseconds."""
    with _connected() as lab, listening(lab.b, lab.paths[1].b.device) as sniffer:
        (identifier,) = re.findall(r"id (\d+)", lab.b.run(["ip", "mptcp", "endpoint", "show"]).stdout)
        wanted = False

        def toggle() -> float:
            nonlocal wanted
            wanted = not wanted
            sniffer.forget()
            word = "backup" if wanted else "nobackup"
            began = time.clock_gettime_ns(time.CLOCK_REALTIME)
            lab.b.run(["ip", "mptcp", "endpoint", "change", "id", identifier, word])
            return _after(began, sniffer, wanted)

        yield toggle


def missing() -> str:
    """Return what this machine lacks for mptcpd with a plugin of our own, empty if it has all."""
    if not os.access(DAEMON, os.X_OK):
        return "mptcpd is not installed"
    if not HEADER.exists():
        return "libmptcpd3-dev is not installed"
    return "" if shutil.which("clang") else "there is no clang to compile the plugin"


@contextmanager
def mptcpd() -> Iterator[Callable[[], float]]:
    """Yield what has mptcpd's plugin toggle a subflow, and returns microseconds from its call."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emptcp-mptcpd-")))
        daemons: list[_Daemon] = []
        lab = stack.enter_context(_connected(lambda lab: daemons.append(_Daemon(lab.a, folder))))
        daemons[0].wait_for("joined")
        time.sleep(SETTLE)
        sniffer = stack.enter_context(listening(lab.a, lab.paths[1].a.device))
        device, turns = lab.paths[0].a.device, 0

        def toggle() -> float:
            nonlocal turns
            turns += 1
            daemons[0].forget()
            sniffer.forget()
            address = f"10.99.{turns // 250}.{turns % 250 + 1}/32"
            lab.a.run(["ip", "address", "add", address, "dev", device])
            _, called, code, backup = daemons[0].wait_for("called").split()
            if int(code):
                raise EmptcpError(f"mptcpd refuses to set a subflow backup: {os.strerror(int(code))}")
            return _after(int(called), sniffer, backup == "1")

        yield toggle


def _after(began: int, sniffer: Sniffer, wanted: bool) -> float:
    left, said = sniffer.prio()
    if said != wanted:
        raise EmptcpError("MP_PRIO said the contrary of what was asked for")
    return (left - began) / 1000


class _Daemon:
    """mptcpd with our plugin, in a host; it ends with the host."""

    def __init__(self, host: Host, folder: Path) -> None:
        plugins = folder / "plugins"
        plugins.mkdir(mode=0o755)
        source = str(files("emptcp_bench.control") / "set_backup.c")
        made = str(plugins / "set_backup.so")
        subprocess.run(["clang", "-O2", "-shared", "-fPIC", "-o", made, source], check=True, timeout=60)
        host.set("net.mptcp.pm_type", 1)
        words = ["--plugin-dir", str(plugins), "--load-plugins", "set_backup", "--path-manager", "set_backup"]
        child = host.start([DAEMON, *words, "--debug", "--log", "stderr"], stderr=subprocess.PIPE)
        assert child.stderr is not None
        self._stream = child.stderr.fileno()
        self._said = ""
        self.wait_for("family appeared")

    def forget(self) -> None:
        """Drop what it said so far."""
        while select.select([self._stream], [], [], 0)[0] and os.read(self._stream, 1 << 16):
            pass
        self._said = ""

    def wait_for(self, words: str) -> str:
        """Return the next line that has these words in it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            *lines, self._said = self._said.split("\n")
            for n, line in enumerate(lines):
                if words in line:
                    self._said = "\n".join([*lines[n + 1 :], self._said])
                    return line
            if not select.select([self._stream], [], [], max(0, deadline - time.monotonic()))[0]:
                raise EmptcpError(f"mptcpd does not say '{words}'", fix="Try it by hand, with --debug.")
            self._said += os.read(self._stream, 1 << 16).decode(errors="replace")


@contextmanager
def _connected(prepare: Callable[[Lab], object] = lambda lab: None) -> Iterator[Lab]:
    """Yield two hosts with one idle connection of two subflows from a to b."""
    with two_hosts([LabPath(), LabPath()], link="veth", name="control") as lab, ExitStack() as opened:
        prepare(lab)
        address = lab.paths[0].b.address(4)
        listener = opened.enter_context(lab.b.call(lambda: listen(wildcard(address), timeout=10)))
        client = opened.enter_context(lab.a.call(lambda: mptcp_socket(address, timeout=10)))
        client.connect((address, listener.getsockname()[1]))
        server = opened.enter_context(listener.accept()[0])
        _exchange(client, server)
        yield lab


def _exchange(client: socket.socket, server: socket.socket) -> None:
    """Send both ways until the second subflow is there: the first data lets the server announce."""
    deadline = time.monotonic() + PATIENCE
    while mptcp_info(client)[1] < 2:
        if time.monotonic() > deadline:
            raise EmptcpError("the second subflow does not come up", fix="See: emptcp doctor")
        for one, other in ((client, server), (server, client)):
            one.sendall(b"x")
            other.recv(1)
        time.sleep(0.05)
