# SPDX-License-Identifier: Apache-2.0
"""What end-to-end tests share: an instance of emptcp of the test's own, and the command line."""

from __future__ import annotations

import importlib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from emptcp.chain import apply, pins, running, tables
from emptcp.cli.main import main
from emptcp_sdk.compiler import compile_source, find_compiler

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


STRANGER = """
#include <emptcp/actor.h>

struct mark {
	__u32 number;
};

EMPTCP_ACTOR(mark, pkt, struct mark, param)
{
	return param->number > 100 ? EMPTCP_DROP : EMPTCP_NEXT;
}
"""
STRANGERS_MANIFEST = """
schema = 1
abi = 1
name = "mark"
summary = "a stranger's plugin"
object = "mark.bpf.o"
{plugin}

[[actor]]
name = "mark"
help = "look at the packet"
hooks = ["ingress"]
verdicts = ["NEXT", "DROP"]
{actor}

[[actor.parameter]]
name = "number"
type = "int"
default = 1
min = 1
max = 100
"""


@pytest.fixture(scope="session")
def strangers_object(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a plugin's object, compiled as its author would."""
    source = tmp_path_factory.mktemp("stranger") / "mark.bpf.c"
    source.write_text(STRANGER)
    compile_source(find_compiler(), source, source.with_suffix(".o"))
    return source.with_suffix(".o").read_bytes()


@pytest.fixture
def stranger(tmp_path: Path, strangers_object: bytes, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return what installs a third party's plugin ``mark`` as pip does, and returns its package's folder.

    ``plugin`` and ``actor`` are further lines of its manifest.
    """
    # The last test's `instance` may have imported it once more when it ended.
    for name in [name for name in sys.modules if name.partition(".")[0] == "strangers_mark"]:
        del sys.modules[name]
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setenv("EMPTCP_ETC", str(tmp_path / "etc"))
    monkeypatch.syspath_prepend(str(site))

    def install(*, plugin: str = "", actor: str = "") -> Path:
        package, info = site / "strangers_mark", site / "strangers_mark-1.0.dist-info"
        package.mkdir()
        info.mkdir()
        Path(package, "__init__.py").write_text("")
        Path(package, "emptcp.toml").write_text(STRANGERS_MANIFEST.format(plugin=plugin, actor=actor))
        Path(package, "mark.bpf.o").write_bytes(strangers_object)
        Path(info, "METADATA").write_text("Metadata-Version: 2.1\nName: strangers-mark\nVersion: 1.0\n")
        Path(info, "entry_points.txt").write_text("[emptcp.plugins]\nmark = strangers_mark\n")
        files = [*info.iterdir(), *package.iterdir()]
        Path(info, "RECORD").write_text("".join(f"{path.relative_to(site)},,\n" for path in files))
        importlib.invalidate_caches()
        return package

    return install
