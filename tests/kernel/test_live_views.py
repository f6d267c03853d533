# SPDX-License-Identifier: Apache-2.0
"""`emptcp top` and `connections --watch` in a terminal: drawn again, ended by a key, nothing left behind."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from emptcp.lab.sockets import listen, mptcp_socket
from emptcp.lab.topology import Lab, two_hosts

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance"), pytest.mark.timeout(120)]

TABLE = """
table = "t"
[path.one]
dev = "path1"
[[policy]]
name = "count all"
hook = "egress"
dev = "path1"
do = ["record('packets')"]
"""
ROWS, COLUMNS = 30, 132
OPEN, CLOSE = b"\x1b[?1049h", b"\x1b[?1049l"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMPTCP_RUN", str(tmp_path_factory.mktemp("lab")))
        with two_hosts(link="veth", name=f"l{os.getpid()}") as made:
            yield made


@pytest.fixture
def traffic(lab: Lab) -> Iterator[None]:
    """A connection from host a that carries something all the time."""
    address, done = lab.paths[0].b.address4, threading.Event()
    with ExitStack() as opened:
        listener = opened.enter_context(lab.b.call(lambda: listen("0.0.0.0", timeout=30)))
        client = opened.enter_context(lab.a.call(lambda: mptcp_socket(address, timeout=30)))
        client.connect((address, listener.getsockname()[1]))
        server = opened.enter_context(listener.accept()[0])
        server.settimeout(20)

        def exchange() -> None:
            while not done.wait(0.02):
                client.sendall(bytes(10_000))
                left = 10_000
                while left:
                    left -= len(server.recv(left))

        thread = threading.Thread(target=exchange)
        thread.start()
        yield
        done.set()
        thread.join(20)


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self.end, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("=4H", ROWS, COLUMNS, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        command = [sys.executable, "-m", "emptcp.cli.main", *words]
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        self.written = b""

    def read(self, done: Callable[[bytes], bool]) -> None:
        """Read what is drawn until it is enough."""
        deadline = time.monotonic() + 60
        while not done(self.written):
            ready, _, _ = select.select([self.end], [], [], 1)
            if ready:
                self.written += os.read(self.end, 1 << 16)
            assert time.monotonic() < deadline, self.written[-3000:]

    @property
    def screens(self) -> list[str]:
        """What was drawn, screen by screen, without the codes of the terminal."""
        whole = self.written.partition(OPEN)[2].partition(CLOSE)[0].split(b"\x1b[H")[1:]
        return [re.sub(r"\x1b\[[?0-9]*[a-zA-Z]", "", one.decode()).replace("\r\n", "\n") for one in whole]

    def settings(self) -> list[Any]:
        return termios.tcgetattr(self._theirs)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        os.close(self._theirs)
        os.close(self.end)


@contextmanager
def terminal(*words: str) -> Iterator[Terminal]:
    made = Terminal(*words)
    try:
        yield made
    finally:
        made.close()


def ends_by(shown: Terminal, key: bytes) -> None:
    os.write(shown.end, key)
    shown.read(lambda written: CLOSE in written)
    assert shown.process.wait(20) == 0
    # The terminal is as it was: cursor, keys, and the other screen.
    assert shown.written.rindex(b"\x1b[?25h") > shown.written.rindex(b"\x1b[?25l")
    assert shown.settings() == shown.before


@pytest.mark.usefixtures("traffic")
def test_top_draws_paths_connections_and_stages_until_q(
    lab: Lab, emptcp: Any, write: Callable[..., str]
) -> None:
    assert emptcp("apply", write(TABLE), "--netns", lab.a.netns).code == 0
    with terminal("top", "--interval", "0.3", "--netns", lab.a.netns) as shown:
        shown.read(lambda written: written.count(b"\x1b[H") >= 4)
        screen = shown.screens[-2]
        assert len(screen.splitlines()) <= ROWS
        assert max(map(len, screen.splitlines())) <= COLUMNS
        assert re.search(r": 1 connections, \d subflows", screen)
        assert re.search(r"^one +\d +0 .*[km]bit", screen, re.MULTILINE), screen
        assert "established" in screen
        # What the stage was given in the last moment.
        assert re.search(
            r"^record\(.*count all +egress of path1 +[1-9]\d* +[\d.]+ [km]bit", screen, re.MULTILINE
        )
        # A smaller terminal is drawn smaller.
        fcntl.ioctl(shown.end, termios.TIOCSWINSZ, struct.pack("=4H", 6, 40, 0, 0))
        count = len(shown.screens)
        shown.read(lambda written: len(shown.screens) > count + 2)
        small = shown.screens[-2].splitlines()
        assert len(small) <= 6
        assert max(map(len, small)) <= 40
        assert small[-1].endswith("lines more")
        ends_by(shown, b"q")


@pytest.mark.usefixtures("traffic")
def test_watching_connections_ends_by_the_same_key(lab: Lab) -> None:
    with terminal("connections", "--watch", "0.3", "--netns", lab.a.netns) as shown:
        shown.read(lambda written: written.count(b"\x1b[H") >= 4)
        assert re.search(r"^TOKEN +LOCAL", shown.screens[-2], re.MULTILINE)
        assert "bit" in shown.screens[-2]
        ends_by(shown, b"q")


@pytest.mark.usefixtures("traffic")
def test_top_prints_once_where_there_is_no_terminal(lab: Lab, emptcp: Any, write: Callable[..., str]) -> None:
    assert emptcp("apply", write(TABLE), "--netns", lab.a.netns).code == 0
    said = emptcp("top", "--netns", lab.a.netns)
    assert said.code == 0
    assert "\x1b" not in said.out
    assert said.out.count("STAGE") == said.out.count("PATH  SUBFLOWS") == 1
    assert re.search(r"^one .*bit", said.out, re.MULTILINE), said.out


def test_an_interval_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], emptcp: Any) -> None:
    for words in (("top", "--interval", "0"), ("connections", "--watch", "never")):
        with pytest.raises(SystemExit, match="2"):
            emptcp(*words)
        assert "is no time from 0.1 to 3600 seconds" in capsys.readouterr().err
