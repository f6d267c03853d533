# SPDX-License-Identifier: Apache-2.0
"""Nothing is left after Ctrl-C, after kill -9 and `lab down`, or after kill -9 and the next start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from emptcp.hooks import namespaces
from emptcp.lab import process
from emptcp.lab.process import Identity
from emptcp_sdk.testing import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.traffic]

EMPTCP = [sys.executable, "-m", "emptcp.cli.main", "lab"]
RUN = [*EMPTCP, "run", "two-path", "--no-policy", "--no-picture", "--link", "relay"]


@pytest.fixture(autouse=True)
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path))
    yield tmp_path
    subprocess.run([*EMPTCP, "down"], check=True, capture_output=True, timeout=30)


def started(folder: Path) -> tuple[subprocess.Popen[str], dict[str, object], list[Identity]]:
    """A run in mid-transfer: its process, its record, and every process that belongs to it."""
    run = subprocess.Popen(RUN, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    for line in run.stdout:
        if line.lstrip().startswith("1 s"):
            break
    (file,) = (folder / "lab").glob("*.json")
    children = [identity for pid in descendants(run.pid) if (identity := Identity.of(pid))]
    # The link process, a receiver and a sender.
    assert len(children) == 3
    return run, json.loads(file.read_text()), children


def descendants(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    found = [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]
    return [*found, *(deeper for child in found for deeper in descendants(child))]


def gone(identities: list[Identity]) -> bool:
    return not any(one.alive for one in identities)


def left(folder: Path, record: dict[str, object]) -> list[str]:
    """Namespaces and records of a lab that are still there."""
    names = record["namespaces"]
    assert isinstance(names, list)
    return [name for name in names if name in namespaces.named()] + [
        file.name for file in (folder / "lab").glob("*.json")
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_interrupted_leaves_nothing(run_folder: Path, number: signal.Signals) -> None:
    run, record, children = started(run_folder)
    run.send_signal(number)
    _, complaint = run.communicate(timeout=20)
    assert run.returncode == 130
    assert complaint == ""
    wait_until(lambda: gone(children))
    assert left(run_folder, record) == []


def test_children_die_with_a_run_that_is_killed_and_lab_down_removes_the_rest(run_folder: Path) -> None:
    run, record, children = started(run_folder)
    run.kill()
    run.wait()
    wait_until(lambda: gone(children))
    listed = subprocess.run([*EMPTCP, "list"], capture_output=True, text=True, check=True)
    assert "left over" in listed.stdout
    down = subprocess.run([*EMPTCP, "down"], capture_output=True, text=True, check=True)
    assert down.stdout == f"removed lab {record['name']} (left over)\n"
    assert left(run_folder, record) == []


def test_the_next_start_removes_what_a_killed_run_left(run_folder: Path) -> None:
    run, record, _ = started(run_folder)
    run.kill()
    run.wait()
    other, new, _ = started_again(run_folder, record)
    names = new["namespaces"]
    assert isinstance(names, list)
    assert set(names) <= set(namespaces.named())
    other.send_signal(signal.SIGINT)
    other.communicate(timeout=20)
    assert left(run_folder, record) == []


def started_again(
    folder: Path, old: dict[str, object]
) -> tuple[subprocess.Popen[str], dict[str, object], list[Identity]]:
    """A second run; when it stands, nothing of the old one may."""
    found = started(folder)
    assert not [name for name in old["namespaces"] if name in namespaces.named()]  # type: ignore[attr-defined]
    return found


def test_a_run_that_still_goes_is_not_taken_for_a_leftover(run_folder: Path) -> None:
    run, record, children = started(run_folder)
    down = subprocess.run([*EMPTCP, "down"], capture_output=True, text=True, check=True)
    assert down.stdout == "there was no lab to remove\n"
    named = subprocess.run(
        [*EMPTCP, "down", str(record["name"])], capture_output=True, text=True, check=False
    )
    assert named.returncode == 1
    assert f"belongs to process {run.pid}" in named.stderr
    assert all(child.alive for child in children)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=20)


def test_a_kept_lab_stays_works_and_goes(run_folder: Path) -> None:
    name = f"k{os.getpid()}"
    subprocess.run([*EMPTCP, "up", name, "--link", "relay"], check=True, capture_output=True, timeout=30)
    rows = json.loads(subprocess.run([*EMPTCP, "list", "--json"], check=True, capture_output=True).stdout)
    assert rows["schema"] == 1
    (row,) = rows["labs"]
    assert (row["name"], row["state"], row["link"]) == (name, "up", "relay")
    shown = subprocess.run(
        [*EMPTCP, "exec", "b", "--", "ip", "-brief", "address"], check=True, capture_output=True, text=True
    )
    assert "10.0.2.2/24" in shown.stdout
    sleeper = subprocess.Popen([*EMPTCP, "exec", "--lab", name, "a", "sleep", "60"])
    wait_until_inside(row["hosts"]["a"], sleeper.pid)
    subprocess.run([*EMPTCP, "down", name], check=True, capture_output=True, timeout=30)
    assert sleeper.wait(30) == -signal.SIGKILL
    assert left(run_folder, {"namespaces": list(row["hosts"].values())}) == []


def wait_until_inside(netns: str, pid: int) -> None:
    there = Path(f"/run/netns/{netns}").stat().st_ino
    wait_until(lambda: Path(f"/proc/{pid}/ns/net").stat().st_ino == there)


def test_killing_by_record_spares_a_later_process_with_the_same_pid() -> None:
    child = subprocess.Popen(["sleep", "60"])
    identity = Identity.of(child.pid)
    assert identity is not None
    process.kill([Identity(identity.pid, identity.started - 1)])
    assert identity.alive
    process.kill([identity])
    assert child.wait(30) == -signal.SIGKILL
