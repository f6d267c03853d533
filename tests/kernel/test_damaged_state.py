# SPDX-License-Identifier: Apache-2.0
"""Files of the run folder that are damaged, or a run folder that is none: told by name, and no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emptcp.chain import pins, running, tables
from emptcp.control.duty import Duty

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

POLICY = """\
table = "{table}"
[[policy]]
name = "p"
hook = "ingress"
dev = "left0"
do = ["record('packets')"]
"""
DAMAGES = {
    "cut": '{"table": "bad", "te',
    "another shape": "[1, 2]",
    "another name": json.dumps({"table": "else", "text": ""}),
    "a number": json.dumps({"table": "bad", "text": 7}),
    "nesting": "[" * 100_000,
    "no UTF-8": "\udcff",
}

Write = Callable[..., str]


@pytest.fixture(params=["tables", "journal"])
def damage(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Path]]:
    """Return what puts a damaged file of table ``bad`` into the run folder."""
    path = Path(pins.run_folder(), request.param, "bad.json")

    def put(text: str) -> Path:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        return path

    yield put
    path.unlink(missing_ok=True)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_file_is_named_and_hinders_no_other_table(
    netns: Callable[[], str], emptcp: Any, write: Write, damage: Callable[[str], Path], how: str
) -> None:
    path = damage(DAMAGES[how])
    name, text = netns(), POLICY.format(table="good")
    done = emptcp("apply", write(text), "--netns", name)
    assert done.code == 0
    assert done.err.count(f"warning: the file {path} is damaged") == 1
    for words in (["list"], ["tune", "p", "record", "what=[bytes]"], ["list", "good"]):
        assert emptcp(*words).code == 0
    told = emptcp("doctor")
    assert told.code == 1
    assert f"the file {path} is damaged" in told.out
    assert "Delete it, and apply its table's policy file again." in told.out
    assert emptcp("doctor", "--repair").code == 1
    assert emptcp("remove", "good").code == 0
    path.unlink()
    assert emptcp("doctor").code == 0


def test_the_resident_process_goes_on_beside_a_damaged_file(
    netns: Callable[[], str], emptcp: Any, write: Write, damage: Callable[[str], Path]
) -> None:
    name = netns()
    assert emptcp("apply", write(POLICY.format(table="good")), "--netns", name).code == 0
    path = damage(DAMAGES["cut"])
    Path(pins.run_folder(), "tables", "no-policies.json").write_text(
        json.dumps({"table": "no-policies", "text": "[[policy]\n"})
    )
    said: list[str] = []
    duty = Duty(said.append, lambda outcome: None)
    duty.begin()
    assert any(f"the file {path} is damaged" in line for line in said)
    assert [namespace.name for namespace in duty.namespaces()] == [name]
    Path(pins.run_folder(), "tables", "no-policies.json").unlink()


def test_a_table_with_a_damaged_record_is_refused_before_anything_is_changed(
    netns: Callable[[], str], emptcp: Any, write: Write
) -> None:
    name, path = netns(), write(POLICY.format(table="t"))
    assert emptcp("apply", path, "--netns", name).code == 0
    before = {one.program.id for one in running.everything().values()}
    record = pins.run_folder() / "tables" / "t.json"
    record.write_text("{")
    other = write(POLICY.format(table="t").replace("do =", 'when = "ip_pair()"\ndo ='), "other.toml")
    for words in (["apply", other, "--netns", name], ["remove", "t"]):
        done = emptcp(*words)
        assert done.code == 1
        assert f"the file {record} is damaged" in done.err
        assert {one.program.id for one in running.everything().values()} == before
    record.unlink()
    assert emptcp("apply", path, "--netns", name).code == 0
    assert tables.unfinished() == []


def outside(*words: str, **environment: str) -> Any:
    """Run the command line in a process of its own, as an operator does."""
    command = [sys.executable, "-m", "emptcp.cli.main", *words]
    env = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=env)


def check_refused(done: Any, *said: str) -> None:
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert done.stderr.startswith("emptcp: "), done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 2, done.stderr
    for text in said:
        assert text in done.stderr, done.stderr


@pytest.mark.parametrize("command", ["apply", "remove", "run"])
def test_a_run_folder_that_can_not_be_made_is_named(write: Write, command: str) -> None:
    words = {"apply": [write(POLICY.format(table="t"))], "remove": ["t"]}.get(command, [])
    done = outside(command, *words, EMPTCP_RUN="/proc/nix")
    check_refused(done, "/proc/nix", "can't be used: no such file or directory", "EMPTCP_RUN")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A run folder on a file system with two pages."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "none", str(folder)], check=True, timeout=10)
    yield folder
    # Lazily: a process that another test started meanwhile may have a copy of the mount.
    subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=10)


def test_a_full_run_folder_is_named_by_the_resident_process(small: Path) -> None:
    Path(small, "filling").write_bytes(bytes(8192))
    check_refused(outside("run", EMPTCP_RUN=str(small)), f"{small}/run.lock can't be used: no space")


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_run_folder_without_room_is_named_and_nothing_is_left(
    netns: Callable[[], str], write: Write, small: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "full":
        Path(small, "filling").write_bytes(bytes(4096))
    else:
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True, timeout=10)
    text = POLICY.format(table="t")
    done = outside("apply", write(text), "--netns", netns(), EMPTCP_RUN=str(small))
    why = {"full": "no space left on device", "read-only": "read-only file system"}[how]
    check_refused(done, f"emptcp: {small}/", f"can't be used: {why}")
    with monkeypatch.context() as patch:
        patch.setenv("EMPTCP_RUN", str(small))
        tree = pins.find()
        assert tree is None or not tree.root.exists()


def test_a_program_that_is_not_installed_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    from emptcp.cli.main import _told

    with pytest.raises(FileNotFoundError) as caught:
        subprocess.run(["emptcp-no-such-program"], check=False)
    assert str(_told(caught.value)).startswith(
        "the program 'emptcp-no-such-program' can't be run: no such file"
    )
