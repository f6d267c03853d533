# SPDX-License-Identifier: Apache-2.0
"""Policies in other network namespaces: named in every way, several in one table, and gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from emptcp.chain import apply, pins, running, tables
from emptcp.hooks import devices, foreign, namespaces

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

POLICY = """
[[policy]]
name = "{name}"
hook = ["ingress", "egress"]
dev = ["left0"]
{netns}
do = ["record('packets')"]
"""
NO_LINKS = "tcx,xdp_link"

Write = Callable[..., str]
Make = Callable[[], str]


def table(*policies: tuple[str, str], name: str = "t") -> str:
    """Return a file's text: a policy per name and ``netns`` (empty: none is named)."""
    texts = (POLICY.format(name=one, netns=f'netns = "{where}"' if where else "") for one, where in policies)
    return f'table = "{name}"\n' + "".join(texts)


def attached(netns: str) -> set[str]:
    """Return the hooks of left0 that have a program."""
    namespace = namespaces.resolve(netns)
    device = devices.find(namespace, "left0")
    return {hook for hook, _, _ in namespaces.call(namespace, lambda: list(foreign._places(device)))}


BOTH = {"ingress", "egress"}


@pytest.fixture
def sleeper() -> Iterator[Callable[[str], int]]:
    """Return what starts a process in a namespace and returns its pid."""
    started: list[subprocess.Popen[bytes]] = []

    def start(netns: str) -> int:
        command = ["nsenter", f"--net=/run/netns/{netns}", "sleep", "60"]
        started.append(subprocess.Popen(command))
        wanted = os.stat(f"/run/netns/{netns}").st_ino
        pid = started[-1].pid
        for _ in range(200):
            if os.stat(f"/proc/{pid}/ns/net").st_ino == wanted:
                return pid
            subprocess.run(["sleep", "0.01"], check=True)
        raise AssertionError("the process did not get into its namespace")

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("by", ["name", "path", "pid"])
@pytest.mark.parametrize("said", ["in the file", "on the command line"])
def test_a_namespace_is_named_by_name_path_or_pid(
    netns: Make, sleeper: Callable[[str], int], emptcp: Any, write: Write, by: str, said: str
) -> None:
    name = netns()
    where = {"name": name, "path": f"/run/netns/{name}", "pid": str(sleeper(name)) if by == "pid" else ""}[by]
    if said == "in the file":
        done = emptcp("apply", write(table(("p", where))))
    else:
        done = emptcp("apply", write(table(("p", ""))), "--netns", where)
    assert (done.code, done.err) == (0, "")
    assert f"ingress of left0 in {where}" in done.out
    assert attached(name) == BOTH
    assert f"left0 in {where}" in emptcp("list").out
    assert emptcp("remove", "t").code == 0
    assert attached(name) == set()


def test_a_pid_may_be_a_number_in_the_file(
    netns: Make, sleeper: Callable[[str], int], emptcp: Any, write: Write
) -> None:
    name = netns()
    pid = str(sleeper(name))
    assert emptcp("apply", write(table(("p", pid)).replace(f'"{pid}"', pid))).code == 0
    assert attached(name) == BOTH


def test_a_policys_own_namespace_goes_before_the_command_lines(
    netns: Make, emptcp: Any, write: Write
) -> None:
    one, two = netns(), netns()
    path = write(table(("own", one), ("given", "")))
    assert emptcp("apply", path, "--netns", two).code == 0
    by_policy = {
        policy.name: found.description.netns
        for found in running.everything().values()
        for policy in found.description.policies
    }
    assert by_policy == {"own": one, "given": two}
    said = json.loads(emptcp("list", "--json").out)
    assert {program["netns"] for program in said["tables"][0]["programs"]} == {one, two}


def test_a_namespace_that_is_not_there_is_refused_with_the_nearest_name(
    netns: Make, emptcp: Any, write: Write
) -> None:
    name = netns()
    done = emptcp("apply", write(table(("p", name + "x"))))
    assert done.code == 1
    assert f"there is no network namespace '{name}x'" in done.err
    assert f"Did you mean '{name}'?" in done.err
    assert running.everything() == {}


@pytest.mark.parametrize("missing", ["", NO_LINKS], ids=["links", "no links"])
def test_a_table_in_two_namespaces_outlives_one_of_them(
    netns: Make, emptcp: Any, write: Write, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", missing)
    stays, goes = netns(), netns()
    path = write(table(("one", stays), ("two", goes)))
    assert emptcp("apply", path).code == 0
    assert (attached(stays), attached(goes)) == (BOTH, BOTH)
    before = {one.location: one.program.id for one in running.everything().values()}
    subprocess.run(["ip", "netns", "delete", goes], check=True, timeout=10)

    seen = emptcp("doctor")
    assert seen.code == 1
    lost = f"the program at ingress of left0 in {goes} is not attached any more"
    assert f"{lost}: its network namespace is gone" in seen.out
    repaired = emptcp("doctor", "--repair")
    assert "repaired: table t: detach ingress of left0" in repaired.out
    # What the file names is still not there, and nobody but the operator can tell what to do about it.
    assert repaired.code == 1
    assert f"there is no network namespace '{goes}'" in repaired.out
    left = {one.location: one.program.id for one in running.everything().values()}
    cookie = namespaces.resolve(stays).cookie
    assert left == {location: number for location, number in before.items() if location.cookie == cookie}
    assert attached(stays) == BOTH

    assert emptcp("remove", "t").code == 0
    assert attached(stays) == set()
    assert emptcp("doctor").code == 0


@pytest.mark.parametrize("missing", ["", NO_LINKS], ids=["links", "no links"])
@pytest.mark.parametrize("policy", ["", "p"], ids=["table", "policy"])
def test_a_table_is_removed_when_its_namespace_is_gone(
    netns: Make, emptcp: Any, write: Write, monkeypatch: pytest.MonkeyPatch, missing: str, policy: str
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", missing)
    name = netns()
    assert emptcp("apply", write(table(("p", name)))).code == 0
    subprocess.run(["ip", "netns", "delete", name], check=True, timeout=10)
    assert emptcp("list").code == 0
    done = emptcp("remove", "t", *([policy] if policy else []))
    assert (done.code, done.err) == (0, "")
    assert running.everything() == {}
    assert tables.unfinished() == []
    tree = pins.find()
    assert tree is not None
    assert not tree.root.exists()
    assert emptcp("doctor").code == 0


def test_a_namespace_of_the_same_name_gets_the_table_and_the_old_pins_go(
    netns: Make, emptcp: Any, write: Write
) -> None:
    name = netns()
    path = write(table(("p", name)))
    assert emptcp("apply", path).code == 0
    old = {one.location.cookie for one in running.everything().values()}
    for words in (["netns", "delete", name], ["netns", "add", name]):
        subprocess.run(["ip", *words], check=True, timeout=10)
    veth = ["link", "add", "left0", "type", "veth", "peer", "name", "right0"]
    subprocess.run(["ip", "-n", name, *veth], check=True, timeout=10)
    assert emptcp("doctor", "--repair").code == 0
    assert attached(name) == BOTH
    assert old.isdisjoint(one.location.cookie for one in running.everything().values())


def test_an_interrupted_change_in_a_namespace_that_is_gone_stops_no_other_command(
    netns: Make, emptcp: Any, write: Write
) -> None:
    goes, stays = netns(), netns()
    assert emptcp("apply", write(table(("p", goes)))).code == 0
    entry = tables.read("t")
    assert entry is not None
    tables.begin(entry)
    subprocess.run(["ip", "netns", "delete", goes], check=True, timeout=10)
    assert emptcp("apply", write(table(("q", stays), name="other"))).code == 0
    assert attached(stays) == BOTH
    assert emptcp("remove", "t").code == 0
    assert tables.unfinished() == []


def test_reattaching_goes_on_behind_a_table_whose_namespace_is_gone(
    netns: Make, emptcp: Any, write: Write
) -> None:
    goes, stays = netns(), netns()
    assert emptcp("apply", write(table(("p", goes), name="a"))).code == 0
    assert emptcp("apply", write(table(("q", stays), name="b"))).code == 0
    subprocess.run(["ip", "netns", "delete", goes], check=True, timeout=10)
    subprocess.run(["ip", "-n", stays, "link", "delete", "left0"], check=True, timeout=10)
    veth = ["link", "add", "left0", "type", "veth", "peer", "name", "right0"]
    subprocess.run(["ip", "-n", stays, *veth], check=True, timeout=10)
    gone, back = apply.reattach()
    assert any("there is no network namespace" in warning for warning in gone.warnings)
    assert {(one.action, one.hook) for one in back.done} >= {("attach", "ingress"), ("attach", "egress")}
    assert attached(stays) == BOTH


def test_a_shell_in_a_namespace_sees_and_changes_what_another_applied(
    netns: Make, emptcp: Any, write: Write
) -> None:
    name = netns()
    assert emptcp("apply", write(table(("p", name)))).code == 0
    command = ["ip", "netns", "exec", name, sys.executable, "-m", "emptcp.cli.main"]
    listed = subprocess.run([*command, "list"], capture_output=True, text=True, timeout=30, check=True)
    assert 'policy "p" {' in listed.stdout
    done = subprocess.run([*command, "remove", "t"], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert attached(name) == set()


def test_what_a_shell_in_a_namespace_applied_outlives_the_shell(
    netns: Make, emptcp: Any, write: Write
) -> None:
    name = netns()
    command = ["ip", "netns", "exec", name, sys.executable, "-m", "emptcp.cli.main"]
    path = write(table(("p", "")))
    subprocess.run([*command, "apply", path], capture_output=True, timeout=30, check=True)
    assert attached(name) == BOTH
    assert 'policy "p" {' in emptcp("list").out
