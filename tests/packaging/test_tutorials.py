# SPDX-License-Identifier: Apache-2.0
"""The tutorials, line by line: files are written as shown, commands run as shown, and print what is shown.

A fenced block ``console`` has commands behind ``$`` and what they print, where ``...`` stands for anything. A
block whose first line names a file is that file.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import OTHERS, ROOT, Workshop

# As root: packets run in the kernel, and hosts are made.
pytestmark = [pytest.mark.packaging, pytest.mark.timeout(240)]

FENCE = re.compile(r"^```(?P<language>\w+)(?: (?P<file>\S+))?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^ +\d+ +[\d.]+ +(?P<second>[\d.]+) +(?P<total>[\d.]+)(?P<event>.*)$", re.MULTILINE)
"""A second of the scenario: what the second path and all together delivered, and what happened."""
PATIENCE = 90


class Reader:
    """Somebody who does all that a tutorial says, in one shell."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        pipe = subprocess.PIPE
        self._shell = subprocess.Popen(
            ["timeout", str(2 * PATIENCE), "bash", "--norc"],
            **{"stdin": pipe, "stdout": pipe, "stderr": subprocess.STDOUT},
            cwd=folder,
            env=environment,
            text=True,
        )

    def run(self, command: str) -> str:
        """Run a command and return what it prints; the shell keeps its folder and its variables."""
        shell = self._shell
        assert shell.stdin
        assert shell.stdout
        shell.stdin.write(f"{command}\necho '<done>'\n")
        shell.stdin.flush()
        lines = []
        for line in shell.stdout:
            if line == "<done>\n":
                return "".join(lines)
            lines.append(line)
        raise AssertionError(f"the shell ended at: {command}\n{''.join(lines)}")

    def write(self, file: str, text: str) -> None:
        """Write a file, relative to the folder that the shell is in."""
        Path(self.run("pwd").strip(), file).write_text(text, encoding="utf-8")

    def close(self) -> None:
        """End the shell."""
        assert self._shell.stdin
        self._shell.stdin.close()
        self._shell.wait(10)


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a block, and what it is to print."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


def pattern(printed: str) -> str:
    return ".*".join(re.escape(part) for part in printed.split("..."))


@pytest.fixture
def reader(workshop: Workshop, tmp_path: Path) -> Iterator[Reader]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OTHERS)}
    own = {"EMPTCP_ETC": tmp_path / "etc", "EMPTCP_RUN": tmp_path / "run", **workshop.offline()}
    made = Reader(tmp_path, kept | {name: str(value) for name, value in own.items()})
    yield made
    made.close()


def follow(reader: Reader, tutorial: str) -> str:
    """Do all that a tutorial says, and return what the lab's scenario printed."""
    table = ""
    for block in FENCE.finditer((ROOT / "docs" / "tutorials" / tutorial).read_text(encoding="utf-8")):
        if block["file"]:
            reader.write(block["file"], block["text"])
            continue
        assert block["language"] == "console", block[0]
        for command, wanted in commands(block["text"]):
            said = reader.run(command)
            assert re.fullmatch(pattern(wanted), said, re.DOTALL), f"$ {command}\n{said}\n(wanted)\n{wanted}"
            table = said if command.startswith("emptcp lab run") else table
    return table


def before_and_meanwhile(said: str, column: str) -> tuple[float, list[float]]:
    """Return what was delivered in the second before the policy was applied, and in those until it went."""
    rows = [(found["event"].strip(), float(found[column])) for found in ROW.finditer(said)]
    applied = next(number for number, (event, _) in enumerate(rows) if "policy applied" in event)
    removed = next(number for number, (event, _) in enumerate(rows) if "policy removed" in event)
    return rows[applied - 1][1], [rate for _, rate in rows[applied : removed + 1]]


def test_your_first_actor(reader: Reader) -> None:
    before, meanwhile = before_and_meanwhile(follow(reader, "first-actor.md"), "total")
    assert min(meanwhile) < 0.7 * before


def test_your_first_scheduler(reader: Reader) -> None:
    before, meanwhile = before_and_meanwhile(follow(reader, "first-scheduler.md"), "second")
    assert min(meanwhile) < 0.3 * before
