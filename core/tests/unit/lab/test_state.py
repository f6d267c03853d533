# SPDX-License-Identifier: Apache-2.0
"""Records of labs: written whole, told apart, and stale when their process is gone."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from emptcp.errors import EmptcpError
from emptcp.lab import state
from emptcp.lab.process import Identity

OURS = Identity.of(os.getpid())
RECORD = state.Record(name="one", owner=OURS, namespaces=("emt-one-a", "emt-one-b"), link="veth")


@pytest.fixture(autouse=True)
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path))


def test_a_record_comes_back_as_it_was_written() -> None:
    state.create(RECORD)
    assert state.records() == [RECORD]
    changed = RECORD.with_process(Identity(1, 2))
    state.update(changed)
    assert state.find("one") == changed
    state.forget(changed)
    state.forget(changed)
    assert state.records() == []


def test_a_name_is_taken_once() -> None:
    state.create(RECORD)
    with pytest.raises(EmptcpError, match="a lab named 'one' already") as refusal:
        state.create(RECORD)
    assert "emptcp lab down one" in refusal.value.fix


def test_an_unknown_lab_is_named_with_the_nearest() -> None:
    state.create(RECORD)
    with pytest.raises(EmptcpError, match="no lab named 'onne'") as refusal:
        state.find("onne")
    assert refusal.value.fix == "Did you mean 'one'?"


@pytest.mark.parametrize("name", ["", "-x", "Lab", "a" * 41, "../x", "a b"])
def test_a_name_that_no_file_should_have_is_refused(name: str) -> None:
    with pytest.raises(EmptcpError, match="can't name a lab"):
        state.check_name(name)


def test_a_record_is_stale_when_its_process_is_gone_and_not_when_it_is_kept() -> None:
    child = subprocess.Popen(["sleep", "60"])
    owner = Identity.of(child.pid)
    record = replace(RECORD, owner=owner)
    assert not record.stale
    child.kill()
    child.wait()
    assert record.stale
    assert not replace(record, owner=None).stale


def test_a_process_with_the_same_pid_but_a_later_start_is_another() -> None:
    assert OURS is not None
    assert OURS.alive
    assert not replace(OURS, started=OURS.started - 1).alive


@pytest.mark.parametrize("junk", ["", "{}", "[]", '{"schema": 99}', "\x00\xff"])
def test_a_file_that_is_no_record_is_left_alone(junk: str) -> None:
    state.folder().mkdir(parents=True)
    file = state.folder() / "junk.json"
    file.write_text(junk)
    assert state.records() == []
    assert file.exists()
