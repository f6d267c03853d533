# SPDX-License-Identifier: Apache-2.0
"""What doctor tells of the machine, and how it finds and repairs what a crash or another tool left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emptcp.chain import pins, running, tables
from emptcp.hooks import clsact, devices, foreign, namespaces
from emptcp.lab import state as labs
from emptcp.lab.namespace import exists
from emptcp.pybpf.features import FEATURES

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

POLICY = """
table = "{table}"

[[policy]]
name = "p"
hook = "{hook}"
dev = "left0"
do = ["record('packets')"]
"""
NO_LINKS = "tcx,xdp_link"

Write = Callable[..., str]


@pytest.fixture
def applied(netns: Callable[[], str], emptcp: Any, write: Write) -> Callable[..., str]:
    """Return what puts a table in force on left0 of a fresh namespace and returns the namespace's name."""

    def put(table: str = "t", hook: str = "egress") -> str:
        name = netns()
        path = write(POLICY.format(table=table, hook=hook), f"{table}.toml")
        assert emptcp("apply", path, "--netns", name).code == 0
        return name

    return put


def checks(emptcp: Any, *words: str) -> tuple[int, dict[str, Any], list[str]]:
    """Return doctor's exit code, its checks by name, and the texts of the leftovers."""
    said = emptcp("doctor", "--json", *words)
    data = json.loads(said.out)
    assert data["schema"] == 1
    by_name = {check["name"]: check for check in data["checks"]}
    return said.code, by_name, [one["text"] for one in data["checks"] if one["name"] == "leftover"]


def attached(netns: str) -> list[int]:
    namespace = namespaces.resolve(netns)
    device = devices.find(namespace, "left0")
    return [number for _, _, number in namespaces.call(namespace, lambda: list(foreign._places(device)))]


def test_a_sound_machine_is_told_line_by_line(emptcp: Any) -> None:
    said = emptcp("doctor")
    assert said.code == 0, said.out
    lines = said.out.splitlines()
    assert not [line for line in lines if line.startswith("problem")]
    for name in ("kernel", "rights", "libbpf", "bpffs", "mptcp", *FEATURES):
        (line,) = (line for line in lines if line.split()[1:2] == [name])
        assert line.split()[0] in ("ok", "missing")
    code, by_name, leftovers = checks(emptcp)
    assert (code, leftovers) == (0, [])
    assert by_name["rights"]["text"] == "root"
    assert {check["state"] for check in by_name.values()} <= {"ok", "missing"}
    assert set(by_name["kernel"]) == {"name", "state", "text", "fix"}


def test_a_missing_feature_is_told_and_no_problem(emptcp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", "tcx")
    code, by_name, _ = checks(emptcp)
    assert code == 0
    assert by_name["tcx"]["state"] == "missing"
    assert "switched off by EMPTCP_DISABLE" in by_name["tcx"]["text"]


def test_a_libbpf_that_is_not_there_is_a_problem_with_its_fix() -> None:
    command = [sys.executable, "-m", "emptcp.cli.main", "doctor", "--json"]
    env = {**os.environ, "EMPTCP_LIBBPF": "/nowhere/libbpf.so.1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    by_name = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert by_name["libbpf"]["state"] == "problem"
    assert by_name["libbpf"]["fix"]


def test_what_runs_as_it_should_is_no_leftover(applied: Callable[..., str], emptcp: Any) -> None:
    name = applied()
    before = attached(name)
    assert checks(emptcp)[::2] == (0, [])
    assert checks(emptcp, "--repair")[::2] == (0, [])
    assert attached(name) == before


def test_an_interrupted_change_is_found_and_carried_through(applied: Callable[..., str], emptcp: Any) -> None:
    applied()
    entry = tables.read("t")
    assert entry is not None
    wanted = entry.text.replace("packets", "bytes")
    tables.begin(tables.Entry("t", wanted, entry.netns, entry.source))
    code, _, leftovers = checks(emptcp)
    assert (code, leftovers) == (1, ["a change of table t was interrupted"])
    said = emptcp("doctor", "--repair")
    assert said.code == 0
    assert "repaired: carried through the change of table t" in said.out
    assert "what=[bytes]" in emptcp("list").out
    assert tables.unfinished() == []


def test_an_interrupted_removal_is_carried_through(applied: Callable[..., str], emptcp: Any) -> None:
    name = applied()
    tables.begin(tables.Entry("t", "", name))
    assert checks(emptcp)[0] == 1
    assert checks(emptcp, "--repair")[::2] == (0, [])
    assert attached(name) == []
    assert tables.names() == []


@pytest.mark.parametrize("missing", ["", NO_LINKS], ids=["links", "no links"])
def test_a_program_whose_device_is_gone_is_found_and_forgotten(
    applied: Callable[..., str], emptcp: Any, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", missing)
    name = applied()
    subprocess.run(["ip", "-n", name, "link", "delete", "left0"], check=True, timeout=10)
    code, _, leftovers = checks(emptcp)
    assert code == 1
    lost = f"the program at egress of left0 in {name} is not attached any more: its device is gone"
    assert lost in leftovers
    assert "not attached any more: its device is gone" in emptcp("list").out
    code, _, leftovers = checks(emptcp, "--repair")
    # The table still names a device that is not there: only the operator knows whether it will come back.
    assert code == 1
    assert leftovers == [f"table t: there is no device 'left0' in the network namespace '{name}'"]
    assert running.everything() == {}
    assert emptcp("remove", "t").code == 0
    assert checks(emptcp)[::2] == (0, [])


@pytest.mark.parametrize("missing", ["", NO_LINKS], ids=["links", "no links"])
@pytest.mark.parametrize("hook", ["ingress", "egress"])
def test_a_program_without_a_record_of_its_table_is_found_and_taken_away(
    applied: Callable[..., str], emptcp: Any, monkeypatch: pytest.MonkeyPatch, missing: str, hook: str
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", missing)
    name = applied(hook=hook)
    shutil.rmtree(pins.run_folder() / "tables")
    code, _, leftovers = checks(emptcp)
    assert code == 1
    assert "table t runs on left0, and no record of it is left" in leftovers
    said = emptcp("doctor", "--repair")
    assert said.code == 0, said.out
    assert f"repaired: table t: detach {hook} of left0" in said.out
    assert attached(name) == []
    assert running.everything() == {}


def test_a_table_without_a_record_does_not_take_its_neighbour_along(
    applied: Callable[..., str], emptcp: Any, write: Write
) -> None:
    name = applied("t")
    path = write(POLICY.format(table="u", hook="egress"), "u.toml")
    assert emptcp("apply", path, "--netns", name).code == 0
    (pins.run_folder() / "tables" / "t.json").unlink()
    assert checks(emptcp, "--repair")[::2] == (0, [])
    (left,) = running.everything().values()
    assert [policy.table for policy in left.description.policies] == ["u"]


@pytest.mark.parametrize("missing", ["", NO_LINKS], ids=["links", "no links"])
def test_a_program_that_another_tool_took_away_is_put_back(
    applied: Callable[..., str], emptcp: Any, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", missing)
    name = applied()
    namespace = namespaces.resolve(name)
    ifindex = devices.find(namespace, "left0").ifindex
    (ran,) = running.everything().values()
    if ran.link is not None:
        ran.link.detach()
    else:
        assert namespaces.call(namespace, lambda: clsact.take(ifindex, "egress"))
    assert attached(name) == []
    code, _, leftovers = checks(emptcp)
    lost = "is not attached any more: it was detached by another hand"
    assert (code, leftovers) == (1, [f"the program at egress of left0 in {name} {lost}"])
    assert "not attached any more: it was detached by another hand" in emptcp("list").out
    (program,) = json.loads(emptcp("list", "--json").out)["tables"][0]["programs"]
    assert program["attached"] is False
    assert checks(emptcp, "--repair")[::2] == (0, [])
    assert len(attached(name)) == 1


def test_a_table_whose_pins_were_removed_is_brought_back(applied: Callable[..., str], emptcp: Any) -> None:
    name = applied()
    tree = pins.find()
    assert tree is not None
    for location in tree.locations():
        for pin in tree.folder(location).iterdir():
            pin.unlink()
    code, _, leftovers = checks(emptcp)
    assert code == 1
    assert "table t should run at egress of left0 and does not" in leftovers
    assert checks(emptcp, "--repair")[::2] == (0, [])
    assert len(running.everything()) == 1
    assert attached(name) == [one.program.id for one in running.everything().values()]


def test_a_glob_without_a_device_is_no_problem(netns: Callable[[], str], emptcp: Any, write: Write) -> None:
    path = write(POLICY.format(table="t", hook="egress").replace('"left0"', '"wwan*"'))
    assert emptcp("apply", path, "--netns", netns()).code == 0
    assert checks(emptcp)[::2] == (0, [])


def test_maps_that_no_program_uses_are_found_and_removed(applied: Callable[..., str], emptcp: Any) -> None:
    applied()
    tree = pins.find()
    assert tree is not None
    for location in tree.locations():
        shutil.rmtree(tree.folder(location), ignore_errors=True)
        for pin in tree.folder(location).glob("*"):
            pin.unlink()
    shutil.rmtree(pins.run_folder() / "tables")
    code, _, leftovers = checks(emptcp)
    assert code == 1
    assert any("maps that no program uses are left" in one for one in leftovers)
    assert checks(emptcp, "--repair")[::2] == (0, [])
    assert not tree.root.exists()


def test_a_damaged_record_is_named_with_its_file(applied: Callable[..., str], emptcp: Any) -> None:
    applied()
    record = pins.run_folder() / "tables" / "t.json"
    text = record.read_text()
    record.write_text(text[: len(text) // 2])
    said = emptcp("doctor")
    assert said.code == 1
    assert f"the file {record} is damaged" in said.out
    assert "Traceback" not in said.out + said.err
    record.write_text(text)


LAB = """
import os, signal
from emptcp.lab.path import Path
from emptcp.lab.topology import two_hosts
with two_hosts([Path()], link="veth", name="left") as lab:
    print(lab.a.netns, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_lab_that_was_killed_is_found_and_taken_down(emptcp: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LAB], capture_output=True, text=True, timeout=30, check=False
    )
    namespace = done.stdout.strip()
    assert exists(namespace)
    code, _, leftovers = checks(emptcp)
    assert code == 1
    assert len([one for one in leftovers if one.startswith("the lab left-") and "not taken down" in one]) == 1
    said = emptcp("doctor", "--repair")
    assert said.code == 0
    assert "repaired: removed the lab left-" in said.out
    assert not exists(namespace)
    assert labs.records() == []


def test_a_changed_plugin_is_a_problem_with_its_fix(emptcp: Any, stranger: Callable[..., Path]) -> None:
    folder = stranger()
    assert checks(emptcp)[0] == 0
    assert emptcp("plugins", "enable", "mark").code == 0
    (folder / "__init__.py").write_text("# other\n")
    code, by_name, _ = checks(emptcp)
    assert code == 1
    assert by_name["plugin"]["text"].startswith("strangers-mark:mark: changed")
    assert by_name["plugin"]["fix"] == "Run: emptcp plugins enable mark"
