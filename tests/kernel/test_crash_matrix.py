# SPDX-License-Identifier: Apache-2.0
"""Every command that changes something, killed before every step that changes something.

A step is one change that others can see: a file or pin that comes or goes, an attachment, a switch, a store
to parameters or description. The command runs in a forked process that kills itself before its n-th step, for
every n; the last n is one step too many, so that the command ends by itself.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from emptcp import pybpf
from emptcp.chain import layout, off, running, switches, tables
from emptcp.cli.main import main
from emptcp.hooks import clsact, devices, foreign, namespaces, xdp_netlink
from emptcp.pybpf.descriptor import Descriptor

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300), pytest.mark.usefixtures("instance")]

POLICY = """\
table = "t"
engine = "{engine}"
[[policy]]
name = "p"
hook = ["ingress", "egress"]
dev = "left0"
backend = "{backend}"
when = "{when}"
do = ["record('packets')"]
"""
OTHER = """\
table = "other"
[[policy]]
name = "o"
hook = "egress"
dev = "right0"
do = ["record('packets')"]
"""
OLD, NEW = "packet_type('data')", "ip_pair()"
NO_LINKS = "tcx,xdp_link"
HANGS = 60
"""Seconds after which a command notes where it stands, for who has to find out why it does not end."""

Words = tuple[str, ...]
Write = Callable[..., str]


@dataclass(frozen=True)
class Case:
    """The commands that make the state of before, and the one that is killed; {old} and {new} are files."""

    before: tuple[Words, ...]
    killed: Words


APPLY_OLD = ("apply", "{old}", "--netns", "{netns}")
CASES = {
    "first apply": Case((), ("apply", "{new}", "--netns", "{netns}")),
    "apply": Case((APPLY_OLD,), ("apply", "{new}", "--netns", "{netns}")),
    "tune a value": Case((APPLY_OLD,), ("tune", "p", "record", "what=[packets,bytes]")),
    "tune when": Case((APPLY_OLD,), ("tune", "p", "when=ip_pair()")),
    "chain insert": Case((APPLY_OLD,), ("chain", "insert", "p", "record('bytes')")),
    "chain remove": Case(
        (APPLY_OLD, ("chain", "insert", "p", "record('bytes')")), ("chain", "remove", "p", "record#2")
    ),
    "remove": Case((APPLY_OLD,), ("remove", "t")),
    "off": Case((APPLY_OLD,), ("off",)),
    "on": Case((APPLY_OLD, ("off",)), ("on",)),
    "off t": Case((APPLY_OLD,), ("off", "t")),
    "on t": Case((APPLY_OLD, ("off", "t")), ("on", "t")),
}

# Where a command changes what others see. Maps count only where they belong to programs that run.
STEPS: tuple[tuple[Any, str], ...] = (
    *((Path, name) for name in ("replace", "unlink")),
    *((Descriptor, name) for name in ("pin",)),
    *((pybpf.Link, name) for name in ("_create", "update", "detach")),
    *((layout, name) for name in ("prepare", "flip", "turn")),
    (running, "_put_in_force"),
    (pybpf.Map, "update"),
    *((clsact, name) for name in ("put", "take")),
    *((xdp_netlink, name) for name in ("put", "take")),
)


class Killer:
    """Counts the steps of this process and ends it before one of them."""

    def __init__(self, last: int) -> None:
        self._left = last

    def watch(self) -> None:
        """Take every step's function into its hands."""
        for owner, name in STEPS:
            real = vars(owner)[name]
            if isinstance(real, classmethod):
                setattr(owner, name, classmethod(self._counted(real.__func__)))
            else:
                setattr(owner, name, self._counted(real))

    def _counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **more: Any) -> Any:
            caller = sys._getframe(1).f_globals["__name__"]
            if real.__qualname__ != "Map.update" or caller == running.__name__:
                self._left -= 1
                if self._left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **more)

        return step


def status_of(child: int, stands: IO[bytes]) -> int:
    """Wait for a process and return its status; when time is over, end it and print where it stood."""
    try:
        return os.waitpid(child, 0)[1]
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        stands.seek(0)
        print(stands.read().decode())
        raise


def killed_before(step: int, words: Words) -> bool:
    """Run a command that dies before a step (from 0); return whether it had so many."""
    with tempfile.TemporaryFile() as stands:
        child = os.fork()
        if child == 0:
            try:
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, 1)
                os.dup2(null, 2)
                faulthandler.dump_traceback_later(HANGS, file=stands)
                Killer(step).watch()
                os._exit(main(words))
            finally:
                os._exit(99)
        status = status_of(child, stands)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


Programs = dict[str, tuple[Any, ...]]


def in_force(netns: str) -> Programs:
    """Return hook -> what the attached program runs: its stages as described, their values, what is off."""
    namespace = namespaces.resolve(netns)
    device = devices.find(namespace, "left0")
    places = namespaces.call(namespace, lambda: list(foreign._places(device)))
    # Two programs at one hook would be one too many.
    assert len({hook for hook, _, _ in places}) == len(places), places
    attached = {number: hook for hook, _, number in places}
    found: Programs = {}
    for number, hook in attached.items():
        with pybpf.Program.from_id(number) as program:
            found[hook] = _runs(program)
    return found


def _runs(program: pybpf.Program) -> tuple[Any, ...]:
    maps = {one.info.name: one for one in map(pybpf.Map.from_id, program.info.map_ids)}
    description = running.Description.decode(maps["emptcp_about"].lookup(bytes(4)) or b"")
    value = maps["emptcp_params"].lookup(bytes(4)) or b""
    stages = [stage for policy in description.policies for stage in policy.stages]
    return (
        tuple(stage.text for stage in stages),
        tuple(layout.read(value, stage.slot) for stage in stages if stage.slot is not None),
        tuple(bool(value[policy.switch]) for policy in description.policies),
    )


def behaviour(programs: Programs) -> Programs:
    """Leave out how programs describe themselves."""
    return {hook: (len(texts), *rest) for hook, (texts, *rest) in programs.items()}


@dataclass
class Ground:
    """Where a case is played, and what the files in its words are."""

    netns: str
    emptcp: Any
    names: dict[str, str]
    other: str

    def run(self, words: Words) -> None:
        """Run a command to its end."""
        done = self.emptcp(*self.filled(words))
        assert done.code == 0, (words, done.err)

    def filled(self, words: Words) -> Words:
        return tuple(word.format(**self.names) for word in words)

    def begin(self, before: tuple[Words, ...]) -> None:
        """Make the state of before, whatever there is now."""
        switches.on()
        if off.read().tables:
            switches.on("t")
        if not before and "t" in tables.names():
            self.run(("remove", "t"))
        for words in before:
            self.run(words)

    def problems(self) -> list[str]:
        checks = json.loads(self.emptcp("doctor", "--json").out)["checks"]
        return [one["text"] for one in checks if one["state"] == "problem"]


# The engine tail has a program array to pin, and its parameters stand in entries; without links it is the
# attachments that differ.
TAIL = ("first apply", "apply", "tune a value", "remove", "on t")
WITHOUT_LINKS = ("first apply", "apply", "remove", "off", "on")
MATRIX = [
    *(("fused", "", case) for case in CASES),
    *(("tail", "", case) for case in TAIL),
    *(("fused", NO_LINKS, case) for case in WITHOUT_LINKS),
]


@pytest.fixture
def engine() -> str:
    return "fused"


@pytest.fixture
def missing() -> str:
    return ""


@pytest.fixture
def ground(
    engine: str, missing: str, netns: Callable[[], str], emptcp: Any, write: Write
) -> Iterator[Ground]:
    # Without links there are two ways to attach: XDP by netlink, and a filter at egress.
    name, backend = netns(), "xdp" if missing else "tc"
    names = {
        "old": write(POLICY.format(engine=engine, backend=backend, when=OLD), "old.toml"),
        "new": write(POLICY.format(engine=engine, backend=backend, when=NEW), "new.toml"),
        "netns": name,
    }
    made = Ground(name, emptcp, names, write(OTHER, "other.toml"))
    yield made
    made.begin(())


@pytest.mark.parametrize(("engine", "missing", "case"), MATRIX)
def test_a_command_killed_before_any_step_leaves_old_or_new_and_the_next_one_ends_it(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, case: str, missing: str
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", missing)
    before, words = CASES[case].before, ground.filled(CASES[case].killed)
    ground.begin(before)
    old = in_force(ground.netns)
    ground.run(words)
    new = in_force(ground.netns)
    assert old != new
    step, died, ended = 0, True, set()
    while died:
        ground.begin(before)
        assert in_force(ground.netns) == old
        died = killed_before(step, words)
        _check_not_between(ground, old, new, f"{case}, step {step}")
        ended.add(_carried_through(ground, old, new, step, f"{case}, step {step}"))
        step += 1
    assert ended == {"old", "new"}
    assert step > 3


def _check_not_between(ground: Ground, old: Programs, new: Programs, where: str) -> None:
    """Each hook has the old or the new program in force, or one of them for nothing before and after."""
    now, was, will = (behaviour(one) for one in (in_force(ground.netns), old, new))
    for hook in ("ingress", "egress"):
        assert now.get(hook) in (was.get(hook), will.get(hook)), where


def _carried_through(ground: Ground, old: Programs, new: Programs, step: int, where: str) -> str:
    """Run the next command; return which state it ended in, which is one of the two as a whole."""
    begun = bool(tables.unfinished() or off.read().telling)
    if step % 2:
        ground.emptcp("doctor", "--repair")
    elif not off.read().everything:
        ground.run(("apply", ground.other, "--netns", ground.netns))
    else:
        ground.emptcp("apply", ground.other, "--netns", ground.netns)
    now = in_force(ground.netns)
    assert now in (old, new), where
    assert now == new or not begun, where
    assert (tables.unfinished(), off.read().telling) == ([], frozenset()), where
    assert ground.problems() == [], where
    return "new" if now == new else "old"


def test_an_apply_of_the_same_table_ends_a_tune_that_was_killed(ground: Ground) -> None:
    step, words = 0, ("tune", "p", "record", "what=[packets,bytes]")
    ground.run(APPLY_OLD)
    while killed_before(step, words):
        ground.run(APPLY_OLD)
        assert ground.problems() == []
        wanted = {("packet_type(types=[data])", "record(what=[packets])")}
        assert {texts for texts, *_ in in_force(ground.netns).values()} == wanted
        step += 1
