# SPDX-License-Identifier: Apache-2.0
"""Changes can be taken back: by hand, by a deadline, after a crash; and a file can be had of what runs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path as File
from types import ModuleType

import pytest

from emptcp.chain import apply, health, history, running, tables
from emptcp.chain import probation as pending
from emptcp.chain.session import Session
from emptcp.cli.main import main
from emptcp.control import probation
from emptcp.errors import EmptcpError
from emptcp.lab.path import Path
from emptcp.lab.topology import Lab, two_hosts
from emptcp_sdk.testing import wait_until

pytestmark = pytest.mark.kernel

POLICY = """
table = "t"

[[policy]]
name = "counted"
hook = ["ingress"]
dev = ["{device}"]
when = "packet_type('{what}')"
do = ["record('packets')"]
"""
PATIENCE = "5"
"""Seconds of a probation in which a busy machine applies the file and looks what it did."""


@pytest.fixture(autouse=True)
def instance(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / "run"))
    yield
    pending.end()
    for name in tables.names():
        apply.remove(name)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMPTCP_RUN", str(tmp_path_factory.mktemp("lab")))
        with two_hosts([Path()], link="veth", name="safety") as made:
            yield made


def applied(lab: Lab, folder: File, what: str, *words: str) -> int:
    path = folder / "t.toml"
    path.write_text(POLICY.format(device=lab.paths[0].device_a, what=what))
    return main(["apply", str(path), "--netns", lab.a.netns, *words])


def selects() -> str:
    """What the running policy selects; empty when nothing runs."""
    for found in running.everything().values():
        for policy in found.description.policies:
            return policy.stages[0].text
    return ""


def taken_back(wanted: str) -> None:
    """Wait until the running policy selects this, and no change is on probation any more."""
    wait_until(lambda: selects() == wanted and pending.current() is None, told=selects)


def test_rollback_takes_the_last_changes_back_one_by_one_or_several_at_once(lab: Lab, tmp_path: File) -> None:
    for what in ("data", "ack", "syn", "fin"):
        assert applied(lab, tmp_path, what) == 0
    assert main(["rollback"]) == 0
    assert selects() == "packet_type(types=[syn])"
    assert main(["rollback", "2"]) == 0
    assert selects() == "packet_type(types=[data])"
    assert main(["rollback"]) == 0
    assert selects() == ""
    assert tables.names() == []


def test_a_removed_table_and_a_tuned_value_come_back(lab: Lab, tmp_path: File) -> None:
    applied(lab, tmp_path, "data")
    assert main(["tune", "counted", "packet_type", "types=[ack]"]) == 0
    assert main(["remove", "t"]) == 0
    assert main(["rollback"]) == 0
    assert selects() == "packet_type(types=[ack])"
    assert main(["rollback"]) == 0
    assert selects() == "packet_type(types=[data])"


def test_more_changes_than_there_were_are_refused(
    lab: Lab, tmp_path: File, capsys: pytest.CaptureFixture[str]
) -> None:
    applied(lab, tmp_path, "data")
    assert main(["rollback", "2"]) == 1
    assert "2 changes can't be rolled back, 1 are kept" in capsys.readouterr().err
    assert selects() == "packet_type(types=[data])"


def test_a_change_that_is_not_confirmed_is_rolled_back_by_itself(lab: Lab, tmp_path: File) -> None:
    applied(lab, tmp_path, "data")
    assert applied(lab, tmp_path, "ack", "--confirm", PATIENCE) == 0
    assert selects() == "packet_type(types=[ack])"
    taken_back("packet_type(types=[data])")


def test_a_confirmed_change_stays(lab: Lab, tmp_path: File) -> None:
    applied(lab, tmp_path, "data")
    assert applied(lab, tmp_path, "ack", "--confirm", PATIENCE) == 0
    change = pending.current()
    assert change is not None
    assert main(["confirm"]) == 0
    wait_until(lambda: change.left < -0.5)
    assert selects() == "packet_type(types=[ack])"
    assert main(["confirm"]) == 1


def test_the_next_command_rolls_back_when_the_waiting_process_died(
    lab: Lab, tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probation, "start", lambda: None)
    applied(lab, tmp_path, "data")
    assert applied(lab, tmp_path, "ack", "--confirm", "1") == 0
    time.sleep(1.1)
    apply.reattach()
    assert selects() == "packet_type(types=[data])"


@pytest.mark.parametrize("words", [["remove", "t"], ["tune", "counted", "packet_type", "types=[fin]"]])
def test_no_other_change_is_made_while_one_waits_to_be_confirmed(
    lab: Lab, tmp_path: File, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert applied(lab, tmp_path, "ack", "--confirm", "30") == 0
    capsys.readouterr()
    again = ("--confirm", "9")
    refused = [main(words), applied(lab, tmp_path, "data"), applied(lab, tmp_path, "data", *again)]
    assert refused == [1, 1, 1]
    assert capsys.readouterr().err.count("a change of table 't' waits to be confirmed") == 3
    assert selects() == "packet_type(types=[ack])"
    assert main(["confirm"]) == 0
    assert main(words) == 0


def test_a_rollback_by_hand_ends_the_wait(lab: Lab, tmp_path: File) -> None:
    applied(lab, tmp_path, "data")
    applied(lab, tmp_path, "ack", "--confirm", PATIENCE)
    change = pending.current()
    assert change is not None
    assert main(["rollback"]) == 0
    assert pending.current() is None
    applied(lab, tmp_path, "fin")
    wait_until(lambda: change.left < -0.5)
    assert selects() == "packet_type(types=[fin])"


def test_a_command_that_is_cut_off_while_it_changes_things_is_taken_back_too(
    lab: Lab, tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied(lab, tmp_path, "data")
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(tables, "finish", lambda entry: os.kill(os.getpid(), signal.SIGKILL))
        applied(lab, tmp_path, "ack", "--confirm", PATIENCE)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert selects() == "packet_type(types=[ack])"
    taken_back("packet_type(types=[data])")
    assert tables.unfinished() == []


def test_a_change_that_can_not_be_taken_back_is_told_by_doctor_and_stops_no_other_table(
    lab: Lab, tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probation, "start", lambda: None)
    monkeypatch.setattr(health, "GRACE", 0.0)
    applied(lab, tmp_path, "data")
    applied(lab, tmp_path, "ack", "--confirm", "1")
    time.sleep(1.1)
    with monkeypatch.context() as broken:
        broken.setattr(Session, "change", _refuse)
        apply.reattach()
        assert any("not confirmed" in finding.what for finding in health.findings())
    apply.reattach()
    assert selects() == "packet_type(types=[data])"
    assert pending.current() is None


@pytest.mark.parametrize(("module", "step", "often"), [(history, "forget", 2), (pending, "end", 1)])
def test_what_was_taken_back_is_no_change_to_roll_back_wherever_that_was_cut_off(
    lab: Lab, tmp_path: File, monkeypatch: pytest.MonkeyPatch, module: ModuleType, step: str, often: int
) -> None:
    done = getattr(module, step)

    def cut_off(*what: object) -> None:
        done(*what)
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(probation, "start", lambda: None)
    for what in ("ack", "data"):
        applied(lab, tmp_path, what)
    applied(lab, tmp_path, "ack", "--confirm", "1")
    wait_until(lambda: (change := pending.current()) is not None and change.left <= 0)
    for _ in range(often):
        child = os.fork()
        if child == 0:
            monkeypatch.setattr(module, step, cut_off)
            apply.reattach()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
    apply.reattach()
    assert pending.current() is None
    assert selects() == "packet_type(types=[data])"
    assert main(["rollback"]) == 0
    assert selects() == "packet_type(types=[ack])"
    assert main(["rollback"]) == 0
    assert selects() == ""


def _refuse(*_arguments: object, **_more: object) -> None:
    raise EmptcpError("no")


@pytest.mark.parametrize("seconds", ["nan", "-3", "0", "soon", "1e9"])
def test_a_time_that_is_none_is_a_wrong_use(lab: Lab, tmp_path: File, seconds: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        applied(lab, tmp_path, "data", "--confirm", seconds)
    assert selects() == ""


def test_a_damaged_history_stops_no_change(lab: Lab, tmp_path: File) -> None:
    applied(lab, tmp_path, "data")
    for path in (tmp_path / "run" / "history").glob("*.json"):
        path.write_text("{")
    assert applied(lab, tmp_path, "ack") == 0
    assert main(["rollback"]) == 0
    assert selects() == "packet_type(types=[data])"


def test_the_file_that_list_prints_applies_to_the_same_state(
    lab: Lab, tmp_path: File, capsys: pytest.CaptureFixture[str]
) -> None:
    applied(lab, tmp_path, "data")
    main(["tune", "counted", "packet_type", "types=[ack,fin]"])
    capsys.readouterr()
    assert main(["list", "--file"]) == 0
    (tmp_path / "again.toml").write_text(capsys.readouterr().out)
    assert main(["diff", str(tmp_path / "again.toml"), "--netns", lab.a.netns]) == 0
