# SPDX-License-Identifier: Apache-2.0
"""A stranger's plugin, from its sources to a live connection, without compiler and repository at the end."""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import subprocess
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .conftest import OTHERS, ROOT, Workshop, run
from .test_tutorials import FENCE, before_and_meanwhile

# As root: packets run in the kernel, and hosts are made.
pytestmark = [pytest.mark.packaging, pytest.mark.timeout(300)]

CHANGED = 60
"""A scheduler takes fewer lines than that beyond the template's, its manifest and tests among them."""

THIRD_PARTY = ROOT / "tests" / "third_party"
COMPILER = re.compile(r"(.*-)?(c\+\+|c89|c99|cc|clang|clang\+\+|cpp|g\+\+|gcc|ld|llc|tcc)([-.].*)?")


@dataclass(frozen=True)
class Machine:
    """An operator's machine: an environment of wheels, and a path without compilers."""

    folder: Path
    wheel: Path

    @property
    def surroundings(self) -> dict[str, Path | str]:
        """The environment variables of its commands."""
        return {
            "PATH": f"{self.folder / 'environment' / 'bin'}:{self.folder / 'commands'}",
            "EMPTCP_ETC": self.folder / "etc",
            "EMPTCP_RUN": self.folder / "run",
        }

    def emptcp(self, *arguments: str) -> str:
        command = self.folder / "environment" / "bin" / "emptcp"
        return run(command, *arguments, cwd=self.folder, **self.surroundings).stdout

    def install(self, workshop: Workshop, *wanted: str | Path) -> None:
        """Install from the folder of wheels, and nothing else."""
        python = self.folder / "environment" / "bin" / "python"
        place = ("--no-index", "--only-binary", ":all:", "--find-links", workshop.wheels)
        workshop.pip("--python", python, "install", *place, *wanted)

    @contextmanager
    def resident(self) -> Iterator[None]:
        """Have the environment's `emptcp run`."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OTHERS)}
        own = {name: str(value) for name, value in self.surroundings.items()}
        command = [self.folder / "environment" / "bin" / "emptcp", "run"]
        with subprocess.Popen(command, env=kept | own, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                assert "ready" in process.stderr.readline()
                yield
            finally:
                process.terminate()

    def row(self) -> dict[str, Any]:
        """Return what `plugins list` says of the stranger's plugin."""
        rows = json.loads(self.emptcp("plugins", "list", "--json"))["plugins"]
        (found,) = [row for row in rows if row["name"] == "mark_ce"]
        return dict(found)


@pytest.fixture(scope="module")
def machine(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Build the wheel as a stranger would, and install it where nothing else of this tree is."""
    folder = tmp_path_factory.mktemp("machine")
    source = Path(shutil.copytree(THIRD_PARTY / "plugin", folder / "source", ignore=ignore_built))
    wheel = workshop.wheel(source, folder / "wheel")
    commands = folder / "commands"
    commands.mkdir()
    found = {path.name: path for place in ("/usr/bin", "/usr/sbin") for path in Path(place).iterdir()}
    for name, path in found.items():
        if not COMPILER.fullmatch(name):
            (commands / name).symlink_to(path)
    venv.create(folder / "environment", with_pip=False, symlinks=True)
    made = Machine(folder, wheel)
    made.install(workshop, "emptcp", wheel)
    return made


def ignore_built(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name.endswith((".bpf.o", ".bpf.json")) or name == "__pycache__"]


def test_the_wheel_has_the_object_and_what_it_was_made_from(machine: Machine) -> None:
    with zipfile.ZipFile(machine.wheel) as archive:
        names = archive.namelist()
        record = json.loads(archive.read("someones_mark_ce/mark_ce.bpf.json"))
    assert "someones_mark_ce/mark_ce.bpf.o" in names
    assert "clang" in record["compiler"]
    assert "emptcp/actor.h" in record["headers"]


def test_the_same_source_gives_the_same_bytes(machine: Machine, workshop: Workshop, tmp_path: Path) -> None:
    source = Path(shutil.copytree(machine.folder / "source", tmp_path / "elsewhere", ignore=ignore_built))
    assert workshop.wheel(source, tmp_path / "wheel").read_bytes() == machine.wheel.read_bytes()


def test_emptcp_installs_it_into_its_own_environment_and_says_what_is_next(
    machine: Machine, workshop: Workshop, tmp_path: Path
) -> None:
    venv.create(tmp_path / "environment", with_pip=False, symlinks=True)
    python = tmp_path / "environment" / "bin" / "python"
    place = ("--no-index", "--find-links", workshop.wheels)
    workshop.pip("--python", python, "install", *place, "emptcp")
    # This environment has no pip: one on the path serves it.
    path = f"{workshop.python.parent}:{machine.surroundings['PATH']}"
    there = {**workshop.offline(), "PATH": path, "EMPTCP_ETC": tmp_path / "etc"}
    command = (python.with_name("emptcp"), "plugins", "install", machine.wheel)
    assert run(*command, cwd=tmp_path, **there).stdout == (
        "installed someones-mark-ce:mark_ce 2.3: found\n"
        "mark_ce: it was never enabled\n  Run: emptcp plugins enable mark_ce\n"
    )
    assert run(*command, cwd=tmp_path, **there).stdout == "no plugin is new\n"
    refused = subprocess.run(
        [*command[:3], "nothing-of-this-name"], env={**os.environ, **there}, capture_output=True, text=True
    )
    assert refused.returncode == 1
    assert "emptcp: pip can't install nothing-of-this-name: No matching distribution found" in refused.stderr


def test_its_own_tests_pass_against_the_wheel(machine: Machine, workshop: Workshop, tmp_path: Path) -> None:
    venv.create(tmp_path / "author", with_pip=False, symlinks=True)
    python = tmp_path / "author" / "bin" / "python"
    place = ("--no-index", "--only-binary", ":all:", "--find-links", workshop.wheels)
    workshop.pip("--python", python, "install", *place, "emptcp-sdk[testing]", machine.wheel)
    tests = (python, "-m", "pytest", "-p", "no:cacheprovider")
    assert "5 passed" in run(*tests, cwd=machine.folder / "source").stdout


def test_there_is_no_compiler_and_nothing_of_this_tree(machine: Machine) -> None:
    path = str(machine.surroundings["PATH"])
    assert not [name for name in ("clang", "gcc", "cc", "ld") if shutil.which(name, path=path)]
    look = (
        "import sys, emptcp, someones_mark_ce; print(emptcp.__file__, someones_mark_ce.__file__, *sys.path)"
    )
    python = machine.folder / "environment" / "bin" / "python"
    assert str(ROOT) not in run(python, "-c", look, cwd=machine.folder, **machine.surroundings).stdout


def test_it_is_listed_enabled_and_acts_on_a_live_connection(machine: Machine) -> None:
    assert (machine.row()["state"], machine.row()["version"]) == ("found", "2.3")
    said = machine.emptcp("plugins", "enable", "mark_ce")
    assert said == "enabled someones-mark-ce:mark_ce 2.3: actor mark_ce\n"
    python = machine.folder / "environment" / "bin" / "python"
    live = run(python, "-P", THIRD_PARTY / "live.py", machine.folder, **machine.surroundings)
    told = json.loads(live.stdout)
    assert (told["intact"], told["mptcp"]) == ([True, True], True)
    assert told["before"] == 0
    assert told["after"] > 5
    marked = [one["metrics"]["ce_marked"] for one in told["connections"]["subflows"]]
    # The kernel counts the segments of a merged packet, the actor the packet.
    assert 0 < sum(marked) <= told["after"]


def write_tutorial(package: Path) -> int:
    """Write the files of a tutorial's package; return how many lines the template had not."""
    text = (ROOT / "docs" / "tutorials" / "first-scheduler.md").read_text(encoding="utf-8")
    changed = 0
    for block in FENCE.finditer(text):
        file = package / (block["file"] or "")
        if file.is_file():
            lines = difflib.ndiff(file.read_text(encoding="utf-8").splitlines(), block["text"].splitlines())
            changed += sum(line.startswith("+ ") for line in lines)
            file.write_text(block["text"], encoding="utf-8")
        elif block["file"] == "thrifty.toml":
            package.with_name("thrifty.toml").write_text(block["text"], encoding="utf-8")
    return changed


def test_a_scheduler_of_few_lines_beyond_the_template_takes_a_path_out_of_a_live_connection(
    machine: Machine, workshop: Workshop, tmp_path: Path
) -> None:
    author = workshop.python.with_name("emptcp-sdk")
    run(author, "new", "thrifty", "--kind", "controller", "--into", "mine", "--defaults", cwd=tmp_path)
    assert 0 < write_tutorial(tmp_path / "mine") < CHANGED
    wheel = workshop.wheel(tmp_path / "mine", tmp_path / "wheel")
    machine.install(workshop, "emptcp-actor-set-backup", "emptcp-selector-subflow", wheel)
    machine.emptcp("plugins", "enable", "thrifty")
    scenario = ("lab", "run", "two-path", "--policy", str(tmp_path / "thrifty.toml"))
    with machine.resident():
        said = machine.emptcp(*scenario, "--duration", "40s", "--no-picture")
    before, meanwhile = before_and_meanwhile(said, "second")
    assert min(meanwhile) < 0.3 * before
