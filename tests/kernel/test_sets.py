# SPDX-License-Identifier: Apache-2.0
"""Sets and maps of running tables: applied, changed by commands, kept, and taken away."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from typing import Any

import pytest

from emptcp import pybpf
from emptcp.chain import attachment, entries, pins, running, tables
from emptcp.errors import EmptcpError
from emptcp.pybpf import features

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

POLICY = """
table = "{table}"
engine = "{engine}"
{exact}
[[policy]]
name = "p"
hook = ["ingress", "egress"]
dev = "*0"
backend = "tc"
when = "subflow in @bulk"
do = ["set_backup(on=subflow @who)", "record('packets')"]
[set.bulk]
key = "subflow"
size = {size}
{bulk}
[set.spare]
key = "ip_pair"
[map.who]
key = "subflow"
type = "bool"
{who}
"""
LISTED = 'entries = ["10.0.0.1:1-10.0.0.2:2", "[fd00::1]:1-[fd00::2]:2"]'
ONE, TWO, THREE = "10.0.0.1:1-10.0.0.2:2", "[fd00::1]:1-[fd00::2]:2", "10.0.0.1:3-10.0.0.2:4"
Write = Callable[..., str]


@pytest.fixture(params=["fused", "tail"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def text(
    *,
    table: str = "t",
    engine: str = "fused",
    size: int = 100,
    bulk: str = LISTED,
    who: str = "",
    exact: bool = False,
) -> str:
    said = "exact = true" if exact else ""
    return POLICY.format(table=table, engine=engine, size=size, bulk=bulk, who=who, exact=said)


@pytest.fixture
def applied(netns: Callable[[], str], emptcp: Any, write: Write) -> Callable[..., Any]:
    """Return what applies the policy in a namespace of the test's own."""
    namespace = netns()

    def run(content: str | None = None, *words: str, **changes: Any) -> Any:
        file = write(content if content is not None else text(**changes))
        said = emptcp("apply", file, "--netns", namespace, *words)
        assert said.code == 0, said.err
        return said

    return run


def listed(emptcp: Any, name: str = "bulk", kind: str = "set") -> list[str]:
    said = emptcp(kind, "list", name, "--json")
    assert said.code == 0, said.err
    return [
        entry["key"] + ("=" + entry["value"] if "value" in entry else "")
        for entry in json.loads(said.out)["entries"]
    ]


def programs() -> list[int]:
    return sorted(one.program.id for one in running.everything().values())


def here() -> tuple[str, str]:
    """Return the words that name the namespace of table ``t``."""
    entry = tables.read("t")
    assert entry is not None
    return "--netns", entry.netns


def store_pins(table: str = "t") -> list[str]:
    tree = pins.find()
    assert tree is not None
    return [path.name for path in tree.store_pins(table)]


def test_one_kernel_map_serves_all_hooks_and_devices(
    applied: Callable[..., Any], emptcp: Any, engine: str
) -> None:
    applied(engine=engine)
    ids = {tuple(sorted(_maps_of(one) & _pinned())) for one in running.everything().values()}
    assert len(running.everything()) == 4
    if engine == "fused":
        assert len(ids) == 1
    assert len(store_pins()) == 3
    assert set(listed(emptcp)) == {ONE, TWO}
    said = emptcp("list")
    assert "  set bulk: subflow, 2 of 100 entries\n" in said.out
    assert "  map who: subflow to bool, 0 of 65536 entries\n" in said.out
    assert "subflow in @bulk" in said.out
    assert "on=subflow @who" in said.out


def _maps_of(one: running.Running) -> set[int]:
    return set(one.program.info.map_ids)


def _pinned() -> set[int]:
    tree = pins.find()
    assert tree is not None
    return {pybpf.Map.from_pin(path).id for path in tree.store_pins("t")}


def test_entries_come_and_go_by_commands_and_reload_nothing(
    applied: Callable[..., Any], emptcp: Any, engine: str
) -> None:
    applied(engine=engine)
    before = programs()
    assert emptcp("set", "add", "bulk", THREE).out == "set bulk of table t: 1 added\n"
    assert (
        emptcp("set", "add", "t/bulk", "10.0.0.2:4-10.0.0.1:3").out == "set bulk of table t: nothing to do\n"
    )
    assert set(listed(emptcp)) == {ONE, TWO, THREE}
    said = emptcp("set", "del", "bulk", ONE, "10.0.0.9:1-10.0.0.8:1")
    assert (said.out, said.err) == (
        "set bulk of table t: 1 removed\n",
        "warning: 10.0.0.9:1-10.0.0.8:1 was not there\n",
    )
    assert emptcp("map", "add", "who", f"{ONE}=true", f"{TWO}=false").out == "map who of table t: 2 added\n"
    assert emptcp("map", "add", "who", f"{TWO}=true").out == "map who of table t: 1 changed\n"
    assert set(listed(emptcp, "who", "map")) == {f"{ONE}=true", f"{TWO}=true"}
    assert emptcp("map", "flush", "who", "--dry-run").out == "map who of table t: 2 would be removed\n"
    assert emptcp("map", "flush", "who").out == "map who of table t: 2 removed\n"
    assert listed(emptcp, "who", "map") == []
    assert programs() == before


def test_a_change_is_whole_or_not_at_all(applied: Callable[..., Any], emptcp: Any) -> None:
    applied()
    for words, sentence in (
        (("set", "add", "bulk", THREE, "10.0.0.1"), "set 'bulk': '10.0.0.1' is no such key"),
        (("set", "add", "bulk", THREE, "10.0.0.1:0-10.0.0.2:1"), "'0' is no port"),
        (("map", "add", "who", f"{ONE}=true", f"{TWO}=perhaps"), "map 'who': 'perhaps' is no bool"),
        (("map", "add", "who", ONE), "has no value"),
        (("set", "add", "bulk", THREE, "--timeout", "5"), "lacks its unit"),
        (("set", "add", "bilk", THREE), "did you mean 'bulk'?"),
        (("map", "list", "bulk"), "no running table has a map 'bulk'"),
    ):
        said = emptcp(*words)
        assert said.code == 1
        assert sentence in said.err
    assert set(listed(emptcp)) == {ONE, TWO}
    assert listed(emptcp, "who", "map") == []


def test_a_full_set_is_refused_and_keeps_what_it_has(applied: Callable[..., Any], emptcp: Any) -> None:
    applied(size=4)
    said = emptcp("set", "add", "bulk", *(f"10.0.0.1:{n}-10.0.0.3:9" for n in range(1, 4)))
    assert "set 'bulk' of table 't' is full: it holds at most 4 entries" in said.err
    assert set(listed(emptcp)) == {ONE, TWO}
    # What has expired makes room.
    assert emptcp("set", "add", "bulk", THREE, "10.0.0.1:9-10.0.0.2:9", "--timeout", "1ns").code == 0
    assert emptcp("set", "add", "bulk", "10.0.0.1:7-10.0.0.2:7", "10.0.0.1:8-10.0.0.2:8").code == 0
    assert len(listed(emptcp)) == 4


def test_entries_with_a_timeout_are_told_and_go(applied: Callable[..., Any], emptcp: Any) -> None:
    applied(bulk='timeout = "1h"')
    assert emptcp("set", "add", "bulk", ONE).code == 0
    assert emptcp("set", "add", "bulk", TWO, "--timeout", "1ns").code == 0
    said = emptcp("set", "list", "bulk")
    assert said.out.startswith(f"{ONE}  # 3")
    assert said.out.count("\n") == 1
    (entry,) = json.loads(emptcp("set", "list", "bulk", "--json").out)["entries"]
    assert 0 < entry["expires_ns"] <= 3600 * 10**9


def test_apply_keeps_what_was_added_and_puts_in_force_what_is_listed(
    applied: Callable[..., Any], emptcp: Any, engine: str, write: Write
) -> None:
    who = f'entries = {{ "{ONE}" = true }}'
    applied(who=who, engine=engine)
    before = programs()
    emptcp("set", "add", "bulk", THREE)
    emptcp("set", "del", "bulk", ONE)
    emptcp("map", "add", "who", f"{ONE}=false", f"{TWO}=false")
    said = emptcp("diff", write(text(who=who, engine=engine)), *here())
    assert said.code == 1
    assert f'+  "{ONE}",' in said.out
    assert f'-"{ONE}" = "false"\n+"{ONE}" = "true"' in said.out
    assert THREE not in said.out
    said = applied(who=who, engine=engine)
    assert "changed set bulk: 1 entries added, 0 removed" in said.out
    assert set(listed(emptcp)) == {ONE, TWO, THREE}
    assert set(listed(emptcp, "who", "map")) == {f"{ONE}=true", f"{TWO}=false"}
    assert emptcp("diff", write(text(who=who, engine=engine)), *here()).code == 0
    assert "is as the file says" in applied(who=who, engine=engine).out
    assert programs() == before


def test_exact_makes_listed_sets_exactly_so(applied: Callable[..., Any], emptcp: Any) -> None:
    applied(exact=True)
    emptcp("set", "add", "bulk", THREE)
    emptcp("map", "add", "who", f"{ONE}=true")
    applied(exact=True)
    assert set(listed(emptcp)) == {ONE, TWO}
    assert listed(emptcp, "who", "map") == [f"{ONE}=true"]  # lists nothing, so keeps all


def test_a_new_size_takes_the_entries_over(applied: Callable[..., Any], emptcp: Any, engine: str) -> None:
    applied(engine=engine)
    emptcp("set", "add", "bulk", THREE)
    old = store_pins()
    said = applied(size=200, engine=engine)
    assert "made set bulk: 3 entries added, 0 removed" in said.out
    assert set(listed(emptcp)) == {ONE, TWO, THREE}
    assert len(store_pins()) == 3
    assert len(set(store_pins()) & set(old)) == 2
    applied(bulk=f"lru = true\n{LISTED}", size=200, engine=engine)
    assert set(listed(emptcp)) == {ONE, TWO, THREE}


def test_a_size_too_small_for_what_there_is_is_refused(
    applied: Callable[..., Any], emptcp: Any, write: Write
) -> None:
    applied()
    emptcp("set", "add", "bulk", THREE)
    before = (store_pins(), programs())
    said = emptcp("apply", write(text(size=2)), *here())
    assert "would have 3 entries, more than its size, 2" in said.err
    assert (store_pins(), programs()) == before


def test_another_key_or_type_begins_anew_and_says_so(applied: Callable[..., Any], emptcp: Any) -> None:
    applied()
    other = (
        text(bulk="")
        .replace('"subflow in', '"ip_pair in')
        .replace('[set.bulk]\nkey = "subflow"', '[set.bulk]\nkey = "ip_pair"')
    )
    said = applied(other)
    assert "set 'bulk': 2 entries were made for another key or type, and are gone" in said.err
    assert listed(emptcp) == []
    assert len(store_pins()) == 3


def test_removing_the_table_removes_its_maps(applied: Callable[..., Any], emptcp: Any) -> None:
    applied(table="a.b-c")
    assert len(store_pins("a.b-c")) == 3
    assert emptcp("remove", "a.b-c").code == 0
    tree = pins.find()
    assert tree is None or not tree.root.exists()


def test_list_prints_a_file_that_applies_to_the_same_state(
    applied: Callable[..., Any], emptcp: Any, write: Write
) -> None:
    applied()
    emptcp("set", "add", "bulk", THREE)
    emptcp("map", "add", "who", f"{TWO}=true")
    emptcp("set", "add", "spare", "10.0.0.1-10.0.0.9")
    shown = emptcp("list", "--file").out
    data = tomllib.loads(shown)
    assert set(data["set"]["bulk"]["entries"]) == {ONE, TWO, THREE}
    assert data["set"]["spare"]["entries"] == ["10.0.0.1-10.0.0.9"]
    assert data["map"]["who"]["entries"] == {TWO: "true"}
    assert emptcp("remove", "t").code == 0
    applied(shown)
    assert set(listed(emptcp)) == {ONE, TWO, THREE}
    assert listed(emptcp, "who", "map") == [f"{TWO}=true"]
    assert emptcp("list", "--file").out == shown


def test_other_tables_and_edits_leave_entries_alone(applied: Callable[..., Any], emptcp: Any) -> None:
    applied()
    emptcp("set", "add", "bulk", THREE)
    applied(table="u", bulk="")
    assert emptcp("chain", "insert", "t/p", "record('bytes')").code == 0
    assert emptcp("tune", "t/p", "when=not subflow in @bulk").code == 0
    assert set(listed(emptcp, "t/bulk")) == {ONE, TWO, THREE}
    said = emptcp("set", "list", "bulk")
    assert "is in several tables" in said.err
    assert emptcp("remove", "u").code == 0
    assert emptcp("rollback").code == 0
    assert set(listed(emptcp, "t/bulk")) == {ONE, TWO, THREE}
    said = emptcp("tune", "t/p", "@bulk", "x=1")
    assert "asks a set" in said.err


def test_a_refused_apply_changes_no_entry(
    applied: Callable[..., Any], emptcp: Any, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied()
    before = store_pins()
    real = attachment.carry_out
    calls: list[object] = []

    def fails(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise EmptcpError("the third can't be")
        return real(*arguments)

    monkeypatch.setattr(attachment, "carry_out", fails)
    other = text(size=300, bulk=f'entries = ["{THREE}"]', who=f'entries = {{"{ONE}" = true}}')
    said = emptcp("apply", write(other), *here())
    assert "the third can't be" in said.err
    assert store_pins() == before
    assert set(listed(emptcp)) == {ONE, TWO}
    assert listed(emptcp, "who", "map") == []


def test_entries_come_from_stdin(
    applied: Callable[..., Any], emptcp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied(size=20000)
    lines = [f"10.0.{n >> 8}.{n & 255}:4000-10.1.0.1:443" for n in range(10000)]
    monkeypatch.setattr(sys, "stdin", io.StringIO("# ten thousand\n\n" + "\n".join(lines) + "\n"))
    assert emptcp("set", "add", "bulk", "-").out == "set bulk of table t: 10000 added\n"
    assert len(listed(emptcp)) == 10002
    monkeypatch.setattr(sys, "stdin", io.StringIO(emptcp("set", "list", "bulk").out))
    assert emptcp("set", "del", "bulk", "-").out == "set bulk of table t: 10002 removed\n"


@pytest.mark.parametrize("batches", [True, False])
def test_ten_thousand_values_change_again_and_again_and_reload_nothing(
    applied: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, batches: bool
) -> None:
    applied()
    before = programs()
    calls = {"single": 0, "batch": 0}
    if batches and not features.has("batch"):
        pytest.skip(features.reason("batch"))
    if not batches:
        monkeypatch.setenv("EMPTCP_DISABLE", "batch")
    monkeypatch.setattr(pybpf.Map, "update", _counted(pybpf.Map.update, calls, "single"))
    monkeypatch.setattr(pybpf.Map, "_write_batch", _counted(pybpf.Map._write_batch, calls, "batch"))
    with entries.open_map("who") as who:
        keys = [f"10.0.{n >> 8}.{n & 255}:4000-10.1.0.1:443" for n in range(10000)]
        for value in (True, False, True):
            began = time.monotonic()
            done = who.add(dict.fromkeys(keys, value))
            assert done.added + done.changed == 10000
            time.sleep(max(0, began + 0.1 - time.monotonic()))
        assert set(who.read().values()) == {"true"}
        assert len(who) == 10000
        assert who.flush().removed == 10000
        assert len(who) == 0
    assert programs() == before
    assert (calls["single"] == 0) == batches
    assert calls["batch"] <= 3 * 50


def _counted(real: Callable[..., Any], calls: dict[str, int], kind: str) -> Callable[..., Any]:
    def counting(*arguments: Any) -> Any:
        calls[kind] += 1
        return real(*arguments)

    return counting


# Runs an apply that kills itself at the n-th call of a function.
KILLED = """
import os, signal, sys
from emptcp.chain import attachment, filling, stores, tables
from emptcp.cli.main import main
from emptcp.pybpf import Map

place, number, *words = sys.argv[1:]
owners = {"carry_out": attachment, "change": stores, "settle": filling, "finish": tables, "pin": Map}
owner = owners[place]
real, calls = getattr(owner, place), []

def watched(*arguments, **named):
    calls.append(arguments)
    if len(calls) == int(number):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **named)

setattr(owner, place, watched)
sys.exit(main(words))
"""


@pytest.mark.parametrize(
    "step", ["change 1", "change 2", "pin 1", "carry_out 1", "carry_out 3", "settle 1", "finish 1"]
)
def test_a_killed_apply_is_carried_through(
    applied: Callable[..., Any], netns: Callable[[], str], emptcp: Any, write: Write, step: str, engine: str
) -> None:
    applied(engine=engine)
    emptcp("set", "add", "bulk", THREE)
    where = here()
    file = write(text(size=300, who=f'size = 9\nentries = {{"{ONE}" = true}}', engine=engine))
    command = [sys.executable, "-c", KILLED, *step.split(), "apply", file, *where]
    killed = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert emptcp("set", "add", "bulk", "10.0.0.1:5-10.0.0.2:6").code == 0
    assert tables.unfinished() == []
    assert set(listed(emptcp)) == {ONE, TWO, THREE, "10.0.0.1:5-10.0.0.2:6"}
    assert listed(emptcp, "who", "map") == [f"{ONE}=true"]
    assert len(store_pins()) == 3
    assert emptcp("diff", file, *where).code == 0


def test_the_kernel_that_has_no_batches_does_the_same(
    applied: Callable[..., Any], emptcp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", "batch")
    applied(size=4)
    emptcp("set", "add", "bulk", THREE)
    assert set(listed(emptcp)) == {ONE, TWO, THREE}
    said = emptcp("set", "add", "bulk", "10.0.0.1:7-10.0.0.2:7", "10.0.0.1:8-10.0.0.2:8")
    assert "is full" in said.err
    assert emptcp("set", "del", "bulk", ONE, TWO, THREE).code == 0
    assert listed(emptcp) == []


def test_stages_that_read_one_map_must_agree(emptcp: Any, write: Write) -> None:
    other = text().replace("\"record('packets')\"", '"rate_limit(rate=subflow @who)"')
    said = emptcp("apply", write(other))
    assert "map 'who' has values of type bool, and parameter 'rate' of actor 'rate_limit'" in said.err


def test_a_map_without_readers_and_a_set_without_key_are_harmless(
    applied: Callable[..., Any], emptcp: Any
) -> None:
    applied(text(who="").replace("on=subflow @who", "on=true") + '[set.far]\nkey = "nowhere"\n')
    assert "map who: subflow to bool, not in use" in emptcp("list").out
    said = emptcp("map", "add", "who", f"{ONE}=true")
    assert "is not in force: no stage reads it" in said.err
    assert "no enabled plugin provides its key" in emptcp("set", "list", "far").err
