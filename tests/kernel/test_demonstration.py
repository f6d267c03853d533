# SPDX-License-Identifier: Apache-2.0
"""The main job: `emptcp lab run two-path` steers a live transfer by a policy file and says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from emptcp.chain import pins, tables
from emptcp.hooks import namespaces

pytestmark = [pytest.mark.kernel, pytest.mark.traffic, pytest.mark.usefixtures("instance")]

RUN = [sys.executable, "-m", "emptcp.cli.main", "lab", "run", "two-path"]


def left(hosts: set[str]) -> list[str]:
    """What a run leaves if it forgets something: its hosts, records, tables, pins."""
    records = [file.name for file in records_of_labs()]
    tree = pins.find()
    pinned = [str(location) for location in tree.locations()] if tree else []
    return [*hosts.intersection(namespaces.named()), *records, *tables.names(), *pinned]


def records_of_labs() -> list[Path]:
    return list(Path(os.environ["EMPTCP_RUN"]).glob("lab/*.json"))


def hosts_of_labs() -> set[str]:
    """Namespaces that a record names."""
    return {name for file in records_of_labs() for name in json.loads(file.read_text())["namespaces"]}


def test_the_policy_makes_a_path_backup_in_mid_transfer_and_gives_it_back(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib, the extra emptcp[lab]")
    picture = tmp_path / "two-path.svg"
    options = ["--json", "--duration", "14s", "--picture", str(picture)]
    done = subprocess.run([*RUN, *options], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["held"] is True, said["statement"]
    before, during, after = (phase["share"] for phase in said["phases"])
    assert before > 0.3
    assert during < 0.05
    assert after > 0.3
    backup = [second["backup"]["path2"] for second in said["seconds"]]
    assert True in backup
    assert backup[0] is backup[-1] is False
    assert "policy applied" in done.stderr
    assert picture.read_text().startswith("<?xml")
    assert left(set()) == []


def test_a_run_that_is_killed_with_its_policy_in_force_is_cleaned_up_by_lab_down() -> None:
    run = subprocess.Popen(
        [*RUN, "--no-picture", "--duration", "30s"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    for line in run.stdout:
        if "policy applied" in line:
            break
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=10)
    (table,) = tables.names()
    assert table.startswith("two-path-")
    hosts = hosts_of_labs()
    assert hosts <= set(namespaces.named())
    assert len(left(hosts)) >= 5
    down = [sys.executable, "-m", "emptcp.cli.main", "lab", "down"]
    subprocess.run(down, check=True, capture_output=True, timeout=30)
    assert left(hosts) == []
