# SPDX-License-Identifier: Apache-2.0
"""A command that is killed in the middle, at every step, and two commands at once."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import IO, Any

import pytest

from emptcp.chain import running, tables
from emptcp.hooks import devices, foreign, namespaces

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

POLICY = """
table = "{table}"
[[policy]]
name = "p"
hook = {hooks}
dev = "{device}"
backend = "tc"
when = "{when}"
do = ["record('packets')"]
"""
BOTH = ["ingress", "egress"]
OLD, NEW = "packet_type('data')", "not packet_type('syn')"

# Runs a command that stops at the n-th call of a function: before it, or after it.
STOPPED = """
import sys
from emptcp.chain import attachment, tables
from emptcp.cli.main import main

moment, function, number, *words = sys.argv[1:]
module = attachment if hasattr(attachment, function) else tables
real, calls = getattr(module, function), []

def stop():
    print("stopped", flush=True)
    sys.stdin.readline()

def watched(*arguments):
    calls.append(arguments)
    here = len(calls) == int(number)
    if here and moment == "before":
        stop()
    answer = real(*arguments)
    if here and moment == "after":
        stop()
    return answer

setattr(module, function, watched)
sys.exit(main(words))
"""
STEPS = ["after begin 1", "after carry_out 1", "after carry_out 2", "before finish 1"]
UNPINNED = "before _pin_as 1"

Write = Callable[..., str]


@contextlib.contextmanager
def stopped(step: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Have a command of emptcp that stands still at a step."""
    command = [sys.executable, "-c", STOPPED, *step.split(), *words]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline().strip()


def go_on(process: subprocess.Popen[str]) -> None:
    """Let a command that stands still go on."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def kill_at(step: str, *words: str) -> None:
    """Kill a command at a step."""
    with stopped(step, *words) as process:
        assert line(process.stdout) == "stopped"
        process.kill()
        assert process.wait(20) == -signal.SIGKILL


def policy(when: str, table: str = "t", hooks: list[str] = BOTH, device: str = "left0") -> str:
    return POLICY.format(table=table, hooks=hooks, device=device, when=when)


def expressions(emptcp: Any, table: str = "t") -> dict[str, set[str]]:
    """Return the selectors of a table in force, by device and hook."""
    data = json.loads(emptcp("list", "--json").out)
    programs = [one for found in data["tables"] if found["name"] == table for one in found["programs"]]
    assert all(one["attached"] for one in programs)
    return {
        f"{one['device']} {one['hook']}": {stage["text"] for stage in one["policies"][0]["stages"][:1]}
        for one in programs
    }


def on_device(netns: str, name: str = "left0") -> list[tuple[str, int]]:
    """Return hook and program id of everything on a device, whoever put it there."""
    namespace = namespaces.resolve(netns)
    device = devices.find(namespace, name)
    return sorted(
        (hook, number)
        for hook, _, number in namespaces.call(namespace, lambda: list(foreign._places(device)))
    )


def clean(emptcp: Any) -> None:
    """Check that doctor finds nothing, and that the journal is empty."""
    said = emptcp("doctor", "--json")
    bad = [one for one in json.loads(said.out)["checks"] if one["state"] not in ("ok", "missing")]
    assert (said.code, bad) == (0, [])
    assert tables.unfinished() == []


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("before", ["", OLD])
def test_the_next_command_carries_through_what_was_killed(
    netns: Callable[[], str], emptcp: Any, write: Write, before: str, step: str
) -> None:
    name = netns()
    if before:
        assert emptcp("apply", write(policy(before)), "--netns", name).code == 0
    kill_at(step, "apply", write(policy(NEW)), "--netns", name)
    if before:  # in every moment one of the two programs is there
        assert len(on_device(name)) == 2
    carry_through(emptcp, write, name)
    new = {"packet_type(types=[syn])"}
    assert expressions(emptcp) == {"left0 ingress": new, "left0 egress": new}
    assert [number for _, number in on_device(name)] == ids("left0")


@pytest.mark.parametrize("step", STEPS[1::2])
def test_the_next_command_ends_a_removal_that_was_killed(
    netns: Callable[[], str], emptcp: Any, write: Write, step: str
) -> None:
    name = netns()
    assert emptcp("apply", write(policy(OLD)), "--netns", name).code == 0
    kill_at(step, "remove", "t")
    carry_through(emptcp, write, name)
    assert expressions(emptcp) == {}
    assert on_device(name) == []


@pytest.mark.parametrize("missing", ["", "tcx,xdp_link"])
def test_a_program_that_was_attached_and_not_pinned_yet_is_not_there_twice(
    netns: Callable[[], str], emptcp: Any, write: Write, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", missing)
    name = netns()
    kill_at(UNPINNED, "apply", write(policy(NEW)), "--netns", name)
    carry_through(emptcp, write, name)
    assert [number for _, number in on_device(name)] == ids("left0")


def carry_through(emptcp: Any, write: Write, netns: str) -> None:
    """Run a command about another table and device, then see whether anything is left of the one before."""
    assert [entry.table for entry in tables.unfinished()] == ["t"]
    other = write(policy(OLD, "other", ["egress"], "right0"), "other.toml")
    done = emptcp("apply", other, "--netns", netns)
    assert (done.code, done.err) == (0, "")
    assert len(on_device(netns, "right0")) == 1
    clean(emptcp)


def ids(device: str) -> list[int]:
    """Return the ids of the programs in force on a device, ingress last."""
    found = [one for one in running.everything().values() if one.description.device == device]
    return [one.program.id for one in sorted(found, key=lambda one: one.description.hook)]


def test_a_command_that_finds_another_one_at_work_names_it_when_it_gives_up(
    netns: Callable[[], str], emptcp: Any, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "WAIT_SECONDS", 0.2)
    name = netns()
    with stopped("after begin 1", "apply", write(policy(NEW)), "--netns", name) as first:
        assert line(first.stdout) == "stopped"
        other = write(policy(OLD, "other", ["egress"], "right0"), "other.toml")
        done = emptcp("apply", other, "--netns", name)
        assert done.code == 1
        assert f"another emptcp (process {first.pid}) is changing policies" in done.err
        assert on_device(name, "right0") == []
        go_on(first)
        assert first.wait(20) == 0


def test_of_two_commands_at_once_one_waits_and_both_are_done(
    netns: Callable[[], str], emptcp: Any, write: Write
) -> None:
    name = netns()
    other = write(policy(OLD, "other", ["egress"], "right0"), "other.toml")
    with (
        stopped("after begin 1", "apply", write(policy(NEW)), "--netns", name) as first,
        stopped("before lock 1", "apply", other, "--netns", name) as second,
    ):
        assert [line(one.stdout) for one in (first, second)] == ["stopped", "stopped"]
        go_on(second)
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(0.5)
        go_on(first)
        assert [one.wait(20) for one in (first, second)] == [0, 0]
    assert set(expressions(emptcp)) == {"left0 ingress", "left0 egress"}
    assert set(expressions(emptcp, "other")) == {"right0 egress"}
    clean(emptcp)
