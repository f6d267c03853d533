# SPDX-License-Identifier: Apache-2.0
"""What end-to-end tests share: an instance of emptcp of the test's own, and the command line."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from emptcp.chain import apply, pins, running, tables
from emptcp.cli.main import main

_numbers = itertools.count()


@dataclass(frozen=True)
class Said:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def netns() -> Iterator[Callable[[], str]]:
    """Return what makes a namespace with the cable ``left0``-``right0`` and returns its name."""
    made: list[str] = []

    def make() -> str:
        name = f"emt{os.getpid()}-end{next(_numbers)}"
        made.append(name)
        _ip("netns", "add", name)
        _ip("-n", name, "link", "add", "left0", "type", "veth", "peer", "name", "right0")
        return name

    yield make
    for name in made:
        if Path("/run/netns", name).exists():
            _ip("netns", "delete", name)


@pytest.fixture
def instance(netns: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An instance of emptcp of the test's own, of which nothing may be left in the kernel.

    It ends before the namespaces do.
    """
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path))
    yield
    for name in tables.names():
        apply.remove(name)
    assert running.everything() == {}
    tree = pins.find()
    assert tree is None or not tree.root.exists()


@pytest.fixture
def emptcp(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return what runs a command of emptcp: words -> how it ended."""

    def run(*words: str) -> Said:
        capsys.readouterr()
        code = main(list(words))
        shown = capsys.readouterr()
        return Said(code, shown.out, shown.err)

    return run


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Return what writes a policy file: its text (and its name) -> its path."""

    def policy_file(text: str, name: str = "policy.toml") -> str:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return policy_file


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)
