# SPDX-License-Identifier: Apache-2.0
"""`emptcp off` and `on`: everything is detached and comes back as it was, single policies are skipped."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emptcp.chain import apply, off, pins, running, sockets, suspension, switches, tables
from emptcp.control.duty import Duty
from emptcp.hooks import devices, foreign, namespaces
from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss
from emptcp.plugins import state

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

POLICY = """\
table = "{table}"
engine = "{engine}"
[[policy]]
name = "first"
hook = ["ingress", "egress"]
dev = "{device}"
backend = "{backend}"
when = "{when}"
do = ["record('packets')"]
[[policy]]
name = "second"
hook = "ingress"
dev = "{device}"
do = ["record('rtt')"]
"""
NO_LINKS = "tcx,xdp_link"
ENGINES = ["fused", "tail"]
PACKET = build(src="10.0.0.1", dst="10.0.0.2", options=[Dss(data_ack=7)])

Write = Callable[..., str]
Apply = Callable[..., Any]


@pytest.fixture(autouse=True)
def on_again(instance: None) -> Iterator[None]:
    """Switch everything on when a test ends, so that nothing is attached by what was off."""
    yield
    switches.on()
    for name in {*off.read().tables, *(table for table, _ in off.read().policies)}:
        switches.on(name)
    assert off.read() == off.Off()


@pytest.fixture
def name(netns: Callable[[], str]) -> str:
    return netns()


@pytest.fixture
def put(name: str, emptcp: Any, write: Write) -> Apply:
    """Return what applies a table of two policies."""

    def put(
        table: str = "t",
        engine: str = "fused",
        backend: str = "auto",
        when: str = "ip_pair()",
        device: str = "left0",
    ) -> Any:
        text = POLICY.format(table=table, engine=engine, backend=backend, when=when, device=device)
        return emptcp("apply", write(text, f"{table}.toml"), "--netns", name)

    return put


def attached(netns: str, device: str = "left0") -> dict[str, int]:
    """Return hook -> program id of everything on a device, whoever put it there."""
    namespace = namespaces.resolve(netns)
    found = devices.find(namespace, device)
    places = namespaces.call(namespace, lambda: list(foreign._places(found)))
    return {hook: number for hook, _, number in places}


def programs() -> dict[str, int]:
    return {one.description.hook: one.program.id for one in running.everything().values()}


def pinned() -> set[str]:
    tree = pins.find()
    assert tree is not None
    return {str(path.relative_to(tree.root)) for path in tree.root.rglob("*") if not path.is_dir()}


def ran(hook: str = "ingress") -> dict[str, int]:
    """Give the hook's program a packet; return how many each policy's actors were given."""
    (one,) = (one for one in running.everything().values() if one.description.hook == hook)
    before = one.counts()
    one.program.test_run(PACKET)
    after = one.counts()
    actors = {policy.name: policy.stages[-1].id for policy in one.description.policies}
    tables_of = {policy.name: policy.table for policy in one.description.policies}
    keys = {policy: f"{tables_of[policy]}/{policy}/{actor}" for policy, actor in actors.items()}
    return {policy: after[key].packets - before[key].packets for policy, key in keys.items()}


def problems(emptcp: Any) -> list[str]:
    checks = json.loads(emptcp("doctor", "--json").out)["checks"]
    return [one["text"] for one in checks if one["state"] == "problem"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("backend", ["tc", "xdp", "xdp-generic"])
@pytest.mark.parametrize("missing", ["", NO_LINKS], ids=["links", "no links"])
def test_everything_is_detached_and_the_very_same_programs_come_back(
    put: Apply,
    name: str,
    emptcp: Any,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    backend: str,
    missing: str,
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", missing)
    assert put(engine=engine, backend=backend).code == 0
    before, files, counted = programs(), pinned(), ran()
    assert attached(name) == before
    assert counted == {"first": 1, "second": 1}

    done = emptcp("off")
    assert (done.code, done.err) == (0, "")
    assert "detached ingress of left0" in done.out
    assert (attached(name), programs()) == ({}, before)
    again = emptcp("off")
    assert (again.code, again.out) == (0, "everything is off already\n")
    assert problems(emptcp) == []

    done = emptcp("on")
    assert (done.code, done.err) == (0, "")
    assert "attached egress of left0" in done.out
    assert (attached(name), programs(), pinned()) == (before, before, files)
    assert {one.description.backend for one in running.everything().values()} == {backend, "tc"}
    assert ran() == {"first": 1, "second": 1}
    assert emptcp("on").out == "everything is on already\n"
    assert problems(emptcp) == []


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("missing", ["", "mmapable_array"], ids=["mapped", "not mapped"])
def test_a_policy_or_a_table_is_skipped_and_nothing_is_loaded_or_attached(
    put: Apply, name: str, emptcp: Any, monkeypatch: pytest.MonkeyPatch, engine: str, missing: str
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", missing)
    assert put(engine=engine).code == 0
    before = attached(name)
    for words, expected in (
        (["off", "t", "first"], {"first": 0, "second": 1}),
        (["off", "t", "second"], {"first": 0, "second": 0}),
        (["on", "t", "first"], {"first": 1, "second": 0}),
        (["off", "t"], {"first": 0, "second": 0}),
        (["on", "t", "second"], {"first": 0, "second": 1}),
        (["on", "t"], {"first": 1, "second": 1}),
    ):
        done = emptcp(*words)
        assert (done.code, done.err) == (0, "")
        assert ran() == expected
        assert ran("egress") == {"first": expected["first"]}
        assert attached(name) == before
        assert problems(emptcp) == []


def test_companions_of_a_policy_that_is_off_go_on(put: Apply, emptcp: Any) -> None:
    assert put().code == 0
    assert emptcp("off", "t").code == 0
    said = emptcp("list").out
    assert "companion record:record_sent" in said
    assert ran("egress") == {"first": 0}


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_off_stays_off_through_every_change(put: Apply, emptcp: Any, engine: str) -> None:
    assert put(engine=engine).code == 0
    assert emptcp("off", "t", "first").code == 0
    warning = "warning: policy 'first' of table 't' is off and stays off until: emptcp on t first\n"
    for change in (
        lambda: put(engine=engine, when="not ip_pair()"),
        lambda: emptcp("tune", "first", "when=ip_pair() and packet_type('data')"),
        lambda: emptcp("chain", "insert", "second", "record('bytes')"),
        lambda: emptcp("tune", "second", "record", "what=[bytes]"),
        lambda: emptcp("rollback", "2"),
    ):
        done = change()
        assert (done.code, done.err) == (0, warning)
        assert ran() == {"first": 0, "second": 1}
    assert put("other", engine=engine, when="not ip_pair()").err == ""
    assert apply.reattach()[1].warnings == [warning.removeprefix("warning: ").strip()]
    assert ran("egress") == {"first": 0}


def test_a_table_that_is_off_stays_off_when_its_file_is_applied_and_the_command_says_so(
    put: Apply, emptcp: Any
) -> None:
    assert put().code == 0
    assert emptcp("off", "t").code == 0
    done = put(when="not ip_pair()")
    assert done.code == 0
    assert done.err == "warning: table 't' is off and stays off until: emptcp on t\n"
    assert ran() == {"first": 0, "second": 0}
    assert emptcp("remove", "t").code == 0
    assert "is off and stays off until: emptcp on t" in put().err
    assert ran() == {"first": 0, "second": 0}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("missing", ["", NO_LINKS], ids=["links", "no links"])
def test_while_everything_is_off_changes_are_refused_and_removals_done(
    put: Apply, name: str, emptcp: Any, monkeypatch: pytest.MonkeyPatch, engine: str, missing: str
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", missing)
    for table in ("t", "other"):
        assert put(table, engine=engine).code == 0
    before = programs()
    assert emptcp("off").code == 0
    for refused in (
        put("t", when="not ip_pair()"),
        put("third"),
        emptcp("tune", "t/first", "when=not ip_pair()"),
        emptcp("chain", "insert", "t/first", "record('bytes')"),
    ):
        assert (refused.code, refused.err) == (1, "emptcp: everything is switched off\nRun: emptcp on\n")
    assert programs() == before
    assert emptcp("remove", "other").code == 0
    assert (attached(name), tables.names()) == ({}, ["t"])
    assert problems(emptcp) == []
    left = programs()
    assert emptcp("on").code == 0
    assert attached(name) == left != before
    assert ran() == {"first": 1, "second": 1}
    assert emptcp("off").code == 0
    assert emptcp("remove", "t").code == 0
    assert running.everything() == {}
    assert problems(emptcp) == []


def test_a_bad_change_is_rolled_back_while_everything_is_off(put: Apply, name: str, emptcp: Any) -> None:
    assert put().code == 0
    assert put(when="not ip_pair()").code == 0
    assert emptcp("off").code == 0
    assert emptcp("rollback").code == 0
    assert attached(name) == {}
    assert emptcp("on").code == 0
    assert attached(name) == programs()
    assert ran()["first"] == 1


def test_nobody_attaches_what_is_off(put: Apply, name: str, emptcp: Any) -> None:
    assert put().code == 0
    assert emptcp("off").code == 0
    duty = Duty(lambda line: None, lambda outcome: None)
    duty.begin()
    duty.appeared(namespaces.resolve(name), "left0")
    assert apply.reattach() == []
    assert emptcp("doctor", "--repair").code == 0
    assert attached(name) == {}


def test_list_doctor_and_diff_say_what_is_off(put: Apply, emptcp: Any, tmp_path: Path, name: str) -> None:
    for table in ("t", "other"):
        assert put(table).code == 0
    assert emptcp("off", "t", "second").code == 0
    assert emptcp("off", "other").code == 0
    listed = emptcp("list").out
    assert 'policy "second" { # off' in listed
    assert "table other { # off" in listed
    data = json.loads(emptcp("list", "--json").out)
    assert [data["off"], *(table["off"] for table in data["tables"])] == [False, True, False]
    policies = [one for program in data["tables"][1]["programs"] for one in program["policies"]]
    assert {(one["name"], one["off"]) for one in policies} == {("first", False), ("second", True)}
    assert emptcp("off").code == 0
    listed = emptcp("list")
    assert "detached: everything is off" in listed.out
    assert "everything is off, and nothing is attached until: emptcp on" in listed.err
    data = json.loads(emptcp("list", "--json").out)
    assert data["off"] is True
    assert all(not program["attached"] for table in data["tables"] for program in table["programs"])
    said = emptcp("doctor")
    assert said.code == 0
    for text in ("everything is off", "policy 'second' of table 't' is off", "table 'other' is off"):
        assert text in said.out
    same = emptcp("diff", str(tmp_path / "t.toml"), "--netns", name)
    assert (same.code, same.err.count("is off")) == (0, 2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tt"], "there is no table 'tt'\nDid you mean 't'?"),
        (["t", "frist"], "table 't' has no policy 'frist'\nDid you mean 'first'?"),
    ],
)
@pytest.mark.parametrize("command", ["off", "on"])
def test_unknown_names_are_refused_with_the_nearest_one(
    put: Apply, emptcp: Any, command: str, words: list[str], said: str
) -> None:
    assert put().code == 0
    done = emptcp(command, *words)
    assert (done.code, done.out, done.err) == (1, "", f"emptcp: {said}\n")
    assert off.read() == off.Off()


def test_a_trial_changes_nothing(put: Apply, name: str, emptcp: Any) -> None:
    assert put().code == 0
    before = attached(name)
    assert "would detach ingress of left0" in emptcp("off", "--dry-run").out
    assert "t/first would switch off at egress of left0" in emptcp("off", "t", "--dry-run").out
    assert (attached(name), off.read()) == (before, off.Off())
    assert emptcp("off").code == 0
    assert "would attach ingress of left0" in emptcp("on", "--dry-run").out
    done = json.loads(emptcp("on", "t", "--json", "--dry-run").out)
    assert (done["schema"], done["dry_run"], done["failed"]) == (1, True, False)
    assert (attached(name), off.read().everything) == ({}, True)


# What is broken meanwhile.

HOOKS = """
from pathlib import Path
from emptcp.api import hookimpl

def note(what, change):
    with open("{heard}", "a") as file:
        file.write(f"{{what}} {{change.policy.name}}\\n")

@hookimpl
def emptcp_applying(change):
    note("applying", change)

@hookimpl
def emptcp_applied(change):
    note("applied", change)

@hookimpl
def emptcp_removed(change):
    note("removed", change)
    {last}
"""
MARKED = """\
table = "marked"
[[policy]]
name = "p"
hook = "ingress"
dev = "left0"
do = ["mark()"]
[[policy]]
name = "q"
hook = "ingress"
dev = "left0"
do = ["mark()"]
"""


@pytest.fixture
def marked(name: str, stranger: Callable[..., Path], emptcp: Any, write: Write) -> Callable[[str], Path]:
    """Return what applies a table of a stranger's plugin, which notes what it hears in the file returned."""

    def mark(last: str = "pass") -> Path:
        folder = stranger(plugin='module = "strangers_mark.hooks"')
        heard = folder.parent / "heard"
        Path(folder, "hooks.py").write_text(HOOKS.format(heard=heard, last=last))
        assert emptcp("plugins", "enable", "mark").code == 0
        assert emptcp("apply", write(MARKED, "marked.toml"), "--netns", name).code == 0
        heard.write_text("")
        return heard

    return mark


def lines(heard: Path) -> list[str]:
    text = heard.read_text()
    heard.write_text("")
    return text.splitlines()


def test_plugins_are_told_once_that_their_policies_end_and_begin_again(
    marked: Callable[..., Path], emptcp: Any
) -> None:
    heard = marked()
    assert emptcp("off", "marked", "p").code == 0
    assert lines(heard) == ["removed p"]
    assert emptcp("off").code == 0
    assert lines(heard) == ["removed q"]
    assert emptcp("off", "marked").code == 0
    assert lines(heard) == []
    assert emptcp("on", "marked", "p").code == 0
    assert lines(heard) == []
    assert emptcp("on").code == 0
    assert lines(heard) == ["applying p", "applied p"]
    assert emptcp("on", "marked").code == 0
    assert lines(heard) == ["applying q", "applied q"]
    assert emptcp("off", "marked", "p", "--keep-effects").code == 0
    assert lines(heard) == []
    assert emptcp("off", "marked", "q").code == 0
    assert emptcp("remove", "marked").code == 0
    assert lines(heard) == ["removed q"]


def test_the_resident_process_tells_plugins_nothing_of_policies_that_are_off(
    marked: Callable[..., Path], emptcp: Any
) -> None:
    heard = marked()
    assert emptcp("off", "marked", "p").code == 0
    lines(heard)
    Duty(lambda line: None, lambda outcome: None).begin()
    assert lines(heard) == ["applied q"]


@pytest.mark.parametrize("words", [[], ["marked"], ["marked", "p"]], ids=["everything", "table", "policy"])
def test_a_plugin_that_fails_to_take_its_effects_back_is_a_warning(
    marked: Callable[..., Path], name: str, emptcp: Any, words: list[str]
) -> None:
    marked("raise OSError('no')")
    done = emptcp("off", *words)
    assert done.code == 0
    assert "plugin 'mark' failed in emptcp_removed (OSError: no)" in done.err
    assert bool(attached(name)) == bool(words)


@pytest.mark.parametrize("how", ["disabled", "changed", "uninstalled", "state damaged"])
@pytest.mark.parametrize("words", [[], ["marked"]], ids=["everything", "table"])
def test_off_and_on_do_without_the_plugin(
    marked: Callable[..., Path], name: str, emptcp: Any, tmp_path: Path, how: str, words: list[str]
) -> None:
    folder = marked().parent / "strangers_mark"
    before = attached(name)
    if how == "disabled":
        state.disable("mark")
    elif how == "changed":
        Path(folder, "hooks.py").write_text("raise SystemExit")
    elif how == "uninstalled":
        for path in [*folder.iterdir()]:
            path.rename(tmp_path / path.name)
        Path(folder.parent, "strangers_mark-1.0.dist-info", "entry_points.txt").unlink()
    else:
        Path(tmp_path, "etc", "plugins.toml").write_text("[")
    done = emptcp("off", *words)
    assert done.code == 0
    assert "told" in done.err
    assert attached(name) == (before if words else {})
    assert set(ran().values()) == ({0} if words else {1})
    assert emptcp("on", *words).code == 0
    assert attached(name) == before
    assert set(ran().values()) == {1}
    if how == "state damaged":
        Path(tmp_path, "etc", "plugins.toml").unlink()


@pytest.mark.parametrize("folder", ["tables", "journal"])
def test_off_and_on_read_no_policy_file(put: Apply, name: str, emptcp: Any, folder: str) -> None:
    assert put().code == 0
    before = attached(name)
    record = Path(pins.run_folder(), folder, "t.json")
    good = Path(pins.run_folder(), "tables", "t.json").read_text()
    record.write_text("{")
    for words in (["t", "first"], ["t"], []):
        assert emptcp("off", *words).code == 0
        assert attached(name) == (before if words else {})
        assert emptcp("on", *words).code == 0
        assert attached(name) == before
    record.unlink() if folder == "journal" else record.write_text(good)


DAMAGES = {
    "cut": '{"everything": tr',
    "another shape": "[1]",
    "a number": '{"everything": true, "tables": 7, "policies": [], "telling": []}',
    "half a pair": '{"everything": true, "tables": [], "policies": [["t"]], "telling": []}',
    "nesting": "[" * 100_000,
}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("command", ["off", "on"])
def test_a_damaged_note_of_what_is_off_is_named_and_written_anew(
    put: Apply, name: str, emptcp: Any, command: str, how: str
) -> None:
    assert put().code == 0
    assert emptcp("off", "t", "first").code == 0
    path = pins.run_folder() / "off.json"
    path.write_text(DAMAGES[how])
    said = f"the file {path}, which says what is switched off, is damaged"
    for words in (["tune", "second", "record", "what=[bytes]"], ["rollback"], ["remove", "t"]):
        refused = emptcp(*words)
        assert (refused.code, said in refused.err) == (1, True)
    assert said in emptcp("list").err
    assert said in emptcp("doctor").out
    assert emptcp(command).code == 0
    assert off.read() == off.Off(command == "off", policies=frozenset({("t", "first")}))
    assert bool(attached(name)) == (command == "on")


@contextlib.contextmanager
def unwritable() -> Iterator[None]:
    """Mount a read-only copy of the run folder over it; the tree of pins stays where it is."""
    folder = str(pins.run_folder())
    subprocess.run(["mount", "--rbind", folder, folder], check=True, timeout=10)
    subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True, timeout=10)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True, timeout=10)


def test_everything_goes_off_although_the_run_folder_can_not_be_written(
    put: Apply, name: str, emptcp: Any
) -> None:
    assert put().code == 0
    with unwritable():
        done = emptcp("off")
    assert done.code == 1
    assert "can't be written (Read-only file system): later commands may attach again" in done.err
    assert attached(name) == {}
    assert emptcp("on").code == 0
    assert attached(name) == programs()


def test_everything_goes_off_although_another_command_hangs(
    put: Apply, name: str, emptcp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert put().code == 0
    before = attached(name)
    monkeypatch.setattr(tables, "WAIT_SECONDS", 0.1)
    with open(pins.run_folder() / "lock", "a+", encoding="ascii") as held:
        fcntl.flock(held.fileno(), fcntl.LOCK_EX)
        done = emptcp("off")
        assert done.code == 0
        assert "not waited for: another emptcp (process " in done.err
        assert attached(name) == {}
        assert emptcp("on").code == 1
    assert problems(emptcp) == ["a change of what is off was interrupted"]
    assert emptcp("doctor", "--repair").code == 0
    assert (attached(name), problems(emptcp)) == ({}, [])
    assert emptcp("on").code == 0
    assert attached(name) == before


@pytest.mark.parametrize("missing", ["", NO_LINKS], ids=["links", "no links"])
@pytest.mark.parametrize("what", ["device", "namespace"])
def test_on_attaches_the_rest_when_something_is_gone_and_says_so(
    netns: Callable[[], str],
    emptcp: Any,
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    missing: str,
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", missing)
    stays, goes = netns(), netns()
    for table, where in (("stays", stays), ("goes", goes)):
        text = POLICY.format(table=table, engine="fused", backend="auto", when="ip_pair()", device="left0")
        assert emptcp("apply", write(text, f"{table}.toml"), "--netns", where).code == 0
    before = attached(stays)
    assert emptcp("off").code == 0
    gone = {"device": ["-n", goes, "link", "delete", "left0"], "namespace": ["netns", "delete", goes]}[what]
    subprocess.run(["ip", *gone], check=True, timeout=10)
    done = emptcp("on")
    assert done.code == 0
    why = {"device": "its device is gone", "namespace": "its network namespace is gone"}[what]
    for hook in ("ingress", "egress"):
        assert f"{hook} of left0 in {goes} stays without its program: {why}" in done.err
    assert attached(stays) == before
    assert emptcp("remove", "goes").code == 0
    assert problems(emptcp) == []


def test_a_program_that_the_device_refuses_now_is_a_failure_and_the_others_are_attached(
    put: Apply, name: str, emptcp: Any
) -> None:
    from emptcp import pybpf
    from emptcp.chain.instructions import EXIT, MOV64_IMM, R0, Instruction, encode

    assert put(backend="xdp").code == 0
    before = attached(name)
    assert emptcp("off").code == 0
    namespace = namespaces.resolve(name)
    ifindex = devices.find(namespace, "left0").ifindex
    code = encode([Instruction(MOV64_IMM, R0, imm=2), Instruction(EXIT)])
    with pybpf.load_program("xdp", code, name="other") as other:
        attach = lambda: pybpf.Link.attach_xdp(other, ifindex)  # noqa: E731
        with namespaces.call(namespace, attach):
            done = emptcp("on")
            assert done.code == 1
            assert f"ingress of left0 in {name}: device 'left0' refuses native XDP" in done.err
            assert attached(name)["egress"] == before["egress"]
            assert suspension.attached(
                next(one for one in running.everything().values() if one.description.hook == "egress")
            )
    assert emptcp("on").code == 0
    assert attached(name) == before


def test_doctor_tells_of_a_policy_that_is_skipped_although_it_is_on(
    put: Apply, name: str, emptcp: Any
) -> None:
    assert put().code == 0
    assert emptcp("off", "t", "first").code == 0
    (pins.run_folder() / "off.json").unlink()
    assert problems(emptcp) == [
        f"the program at {hook} of left0 in {name} skips policy 'first' of table t, which is on"
        for hook in ("egress", "ingress")
    ]
    assert emptcp("on", "t", "first").code == 0
    assert problems(emptcp) == []


def test_off_and_on_work_as_commands_of_a_shell(put: Apply, name: str) -> None:
    assert put().code == 0
    command = [sys.executable, "-m", "emptcp.cli.main"]
    for word, count in (("off", 0), ("on", 2)):
        done = subprocess.run(
            [*command, word], capture_output=True, text=True, timeout=30, check=False, env=os.environ
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert len(attached(name)) == count


PACED = """\
table = "paced"
[[policy]]
name = "p"
hook = "egress"
dev = "left0"
do = ["rate_limit(rate=8mbit, mode=pacing)"]
"""


def test_socket_companions_are_detached_with_everything_and_come_back(
    name: str, emptcp: Any, write: Write
) -> None:
    from emptcp import pybpf

    def companions() -> dict[str, int]:
        tree = pins.find()
        assert tree is not None
        found = {path.name: path for path in tree.root.glob("*/socket/*/*")}
        if "events" not in found:
            return dict.fromkeys(found, 0)
        with pybpf.Link.from_pin(found["events"]) as link:
            return {**dict.fromkeys(found, 0), "events": link.info.program_id}

    applied = emptcp("apply", write(PACED), "--netns", name)
    if sockets.missing():
        assert applied.code == 1
        assert "rate_limit by mode=pacing needs what this kernel lacks" in applied.err
        return
    assert applied.code == 0
    before = companions()
    assert set(before) == {"events", "iterator"}
    assert emptcp("off", "paced").code == 0
    assert companions() == before
    assert emptcp("off").code == 0
    assert set(companions()) == {"detached_events", "iterator"}
    assert emptcp("off").code == 0
    assert emptcp("on").code == 0
    assert companions() == before
    assert emptcp("off").code == 0
    assert emptcp("remove", "paced").code == 0
    assert companions() == {}
    assert emptcp("rollback").code == 0
    assert set(companions()) == {"detached_events", "iterator"}
    assert emptcp("on").code == 0
    assert set(companions()) == {"events", "iterator"}
