# SPDX-License-Identifier: Apache-2.0
"""What a controller remembers: written whole, when it changed, and not too much of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emptcp.control import memory
from emptcp.control.memory import LARGEST, Memory


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(memory, "EVERY", 0.0)
    monkeypatch.delenv("EMPTCP_STATE", raising=False)
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path))
    return memory.file_of("home", "quota")


def test_what_was_kept_is_loaded_again(file: Path) -> None:
    first = Memory(str(file))
    assert first.load() == {}
    first.keep({"used": {"lte": 5}})
    assert Memory(str(file)).load() == {"used": {"lte": 5}}
    assert [one.name for one in file.parent.iterdir()] == ["quota.json"]


def test_nothing_is_written_while_nothing_changes(file: Path) -> None:
    kept = Memory(str(file))
    kept.keep({})
    assert not file.exists()
    kept.keep({"a": 1})
    file.unlink()
    kept.keep({"a": 1})
    assert not file.exists()
    kept.keep({"a": 2})
    assert json.loads(file.read_text()) == {"a": 2}


def test_it_is_written_once_in_a_while(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Memory(str(file))
    monkeypatch.setattr(memory, "EVERY", 3600.0)
    kept.keep({"a": 1})
    kept.keep({"a": 2})
    assert json.loads(file.read_text()) == {"a": 1}
    monkeypatch.setattr(memory, "EVERY", 0.0)
    kept.keep({"a": 2})
    assert json.loads(file.read_text()) == {"a": 2}


@pytest.mark.parametrize("damage", ['{"a": ', "[1]", "\udcff"])
def test_a_damaged_file_is_set_aside_and_told(
    file: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(damage.encode(errors="surrogateescape"))
    kept = Memory(str(file))
    assert kept.load() == {}
    assert str(file) in capsys.readouterr().err
    assert [one.name for one in file.parent.iterdir()] == ["quota.damaged"]
    kept.keep({"a": 1})
    assert Memory(str(file)).load() == {"a": 1}


@pytest.mark.parametrize(
    ("state", "raised"),
    [({"a": object()}, TypeError), ({"a": float("nan")}, ValueError), ({"a": "x" * LARGEST}, ValueError)],
)
def test_what_is_no_small_object_is_refused(
    file: Path, state: dict[str, object], raised: type[Exception]
) -> None:
    kept = Memory(str(file))
    with pytest.raises(raised):
        kept.keep(state)
    assert not file.exists()


def test_a_disk_that_refuses_is_told_once(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.parent.parent.mkdir(parents=True)
    file.parent.write_text("no folder")
    kept = Memory(str(file))
    kept.keep({"a": 1})
    kept.keep({"a": 2})
    assert capsys.readouterr().err.count("can't be written") == 1


def test_the_folder_is_the_operators(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMPTCP_STATE", str(tmp_path / "kept"))
    assert memory.folder() == tmp_path / "kept"
    monkeypatch.delenv("EMPTCP_STATE")
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path))
    assert memory.folder() == tmp_path / "state"
    monkeypatch.delenv("EMPTCP_RUN")
    assert memory.folder() == Path("/var/lib/emptcp")
