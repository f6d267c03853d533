# SPDX-License-Identifier: Apache-2.0
"""Apply, change and remove tables on real devices, with real connections over them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path as File
from typing import Any

import pytest

from emptcp import pybpf
from emptcp.chain import apply, health, pins, running, tables
from emptcp.chain.instructions import EXIT, MOV64_IMM, R0, Instruction, encode
from emptcp.cli.main import main
from emptcp.errors import EmptcpError
from emptcp.hooks import clsact, devices, namespaces
from emptcp.lab.path import Path
from emptcp.lab.topology import Lab, two_hosts
from emptcp.policy import file, model

pytestmark = pytest.mark.kernel

RECORD = """
table = "{table}"
engine = "{engine}"

[[policy]]
name = "counted"
hook = ["ingress"]
dev = ["{device}"]
when = "ip_pair(saddr={peer}) and not packet_type('syn')"
do = ["record('packets', 'bytes')"]
"""


CHOSEN = {"engine": "fused"}


def policy(**values: str) -> str:
    """The text of a table with one policy, for the engine whose turn it is."""
    return RECORD.format(**CHOSEN, **values)


@pytest.fixture(autouse=True, params=["fused", "tail"])
def instance(
    tmp_path: File, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[None]:
    """An instance of emptcp of the test's own, of which nothing may be left; once with each engine."""
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path))
    monkeypatch.setitem(CHOSEN, "engine", request.param)
    yield
    for name in tables.names():
        apply.remove(name)
    assert running.everything() == {}
    tree = pins.find()
    assert tree is None or not tree.root.exists()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMPTCP_RUN", str(tmp_path_factory.mktemp("lab")))
        with two_hosts([Path(), Path()], link="veth", name="apply") as made:
            yield made


def table(lab: Lab, name: str = "t", path: int = 0, **changes: str) -> model.Table:
    end = lab.paths[path]
    text = policy(table=name, device=end.device_a, peer=end.b.address(4))
    for old, new in changes.items():
        text = text.replace({"when": "not packet_type('syn')", "do": "record('packets', 'bytes')"}[old], new)
    return file.loads(text, f"{name}.toml")


def programs() -> dict[str, int]:
    """Program ids by device and hook."""
    found = running.everything().values()
    return {f"{r.description.device} {r.description.hook}": r.program.id for r in found}


def ingress() -> running.Running:
    (found,) = (r for r in running.everything().values() if r.description.hook == "ingress")
    return found


def counts(policy: str = "counted", name: str = "t") -> dict[str, Any]:
    by_stage: dict[str, Any] = {}
    for found in running.everything().values():
        by_stage |= {k: v for k, v in found.counts().items() if k.startswith(f"{name}/{policy}/")}
    return by_stage


def test_a_policy_sees_the_traffic_it_selects_and_changes_no_byte(lab: Lab) -> None:
    apply.apply(table(lab), lab.a.netns)
    done = lab.transfer()
    assert (done.intact, done.mptcp, done.bad_checksums) == (True, True, 0)
    seen = counts()["t/counted/record"]
    assert seen.packets > 100
    assert seen.bytes > done.size / 4
    assert not seen.reasons


def test_applying_twice_leaves_the_running_programs_alone(lab: Lab) -> None:
    first = apply.apply(table(lab), lab.a.netns)
    before = programs()
    again = apply.apply(table(lab), lab.a.netns)
    assert first.changed
    assert not again.changed
    assert programs() == before


def test_a_dry_run_says_what_it_would_do_and_does_nothing(lab: Lab) -> None:
    outcome = apply.apply(table(lab), lab.a.netns, dry_run=True)
    assert {(one.action, one.hook) for one in outcome.done} == {("attach", "ingress")}
    assert programs() == {}
    assert tables.names() == []


def test_new_parameters_are_written_into_the_running_program(lab: Lab) -> None:
    apply.apply(table(lab), lab.a.netns)
    before = programs()
    outcome = apply.apply(table(lab, do="record('bytes')"), lab.a.netns)
    assert {one.hook: one.action for one in outcome.done} == {"ingress": "tune"}
    assert programs() == before
    only = ingress()
    assert only.description.policies[0].stages[-1].text == "record(what=[bytes])"


def test_a_changed_expression_switches_the_program_and_keeps_the_counts(lab: Lab) -> None:
    apply.apply(table(lab), lab.a.netns)
    lab.transfer(size=200_000)
    before, old = programs(), counts()["t/counted/record"].packets
    apply.apply(table(lab, when="packet_type('data')"), lab.a.netns)
    assert programs().keys() == before.keys()
    assert programs() != before
    assert counts()["t/counted/record"].packets == old > 0


def test_two_tables_share_a_device_and_neither_touches_the_other(lab: Lab) -> None:
    apply.apply(table(lab, "one"), lab.a.netns)
    apply.apply(table(lab, "two"), lab.a.netns)
    shared = ingress()
    assert [policy.table for policy in shared.description.policies] == ["one", "two"]
    lab.transfer(size=200_000)
    seen = counts(name="one")["one/counted/record"].packets
    assert seen == counts(name="two")["two/counted/record"].packets > 0
    apply.remove("two")
    left = ingress()
    assert [policy.table for policy in left.description.policies] == ["one"]
    assert counts(name="one")["one/counted/record"].packets == seen


def test_a_tuned_value_of_another_table_survives_when_the_shared_program_is_made_anew(lab: Lab) -> None:
    apply.apply(table(lab, "one"), lab.a.netns)
    assert main(["tune", "one/counted", "record", "what=[bytes]"]) == 0
    apply.apply(table(lab, "two"), lab.a.netns)
    shared = ingress()
    assert shared.description.stages()["one/counted/record"].text == "record(what=[bytes])"


def test_a_refused_device_changes_nothing_of_what_ran_before(lab: Lab) -> None:
    apply.apply(table(lab), lab.a.netns)
    before = programs()
    both = table(lab, do="record('bytes')")
    missing = file.loads(policy(table="t", device="nowhere0", peer="10.0.1.2").replace("counted", "other"))
    with pytest.raises(EmptcpError, match="there is no device 'nowhere0'"):
        apply.apply(
            model.Table("t", (*both.policies, *missing.policies)),
            lab.a.netns,
        )
    assert programs() == before
    assert counts().keys() == {"t/counted/ip_pair", "t/counted/packet_type", "t/counted/record"}
    assert tables.unfinished() == []


def test_a_failed_switch_takes_back_the_ones_before_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    apply.apply(model.Table("t", table(lab).policies), lab.a.netns)
    before = programs()
    policies = (*table(lab, when="packet_type('data')").policies, *table(lab, path=1).policies)
    second = model.Table("t", tuple(_renamed(policies)))
    taken = lab.paths[1].device_a
    subprocess.run(["ip", "-n", lab.a.netns, "link", "set", taken, "down"], check=True)

    def refuse(*_arguments: Any, **_others: Any) -> Any:
        raise pybpf.BpfError("the device refuses")

    # A switch updates the link, or writes the filter that is there: only what is new is refused.
    real = clsact.put
    index = devices.find(namespaces.resolve(lab.a.netns), taken).ifindex
    put = lambda ifindex, *more: refuse() if ifindex == index else real(ifindex, *more)  # noqa: E731
    try:
        with monkeypatch.context() as patch:
            patch.setattr(pybpf.Link, "attach_tcx", refuse)
            patch.setattr(clsact, "put", put)
            with pytest.raises(EmptcpError, match="refuses"):
                apply.apply(second, lab.a.netns)
    finally:
        subprocess.run(["ip", "-n", lab.a.netns, "link", "set", taken, "up"], check=True)
    assert programs() == before
    assert tables.unfinished() == []


def _renamed(policies: tuple[model.Policy, ...]) -> Iterator[model.Policy]:
    from dataclasses import replace

    for number, policy in enumerate(policies):
        yield replace(policy, name=f"{policy.name}{number}" if number else policy.name)


def test_the_next_command_carries_an_interrupted_change_through(lab: Lab) -> None:
    from emptcp.policy import text

    apply.apply(table(lab), lab.a.netns)
    wanted = table(lab, when="packet_type('data')")
    tables.begin(tables.Entry("t", text.table_text(wanted), lab.a.netns, "t.toml"))
    assert any("interrupted" in finding.what for finding in health.findings())
    apply.reattach()
    assert tables.unfinished() == []
    only = ingress()
    assert "packet_type(data)" in only.description.policies[0].source
    assert health.findings() == []


def test_chain_edits_keep_the_counts_of_the_actors_that_stay(lab: Lab) -> None:
    apply.apply(table(lab), lab.a.netns)
    lab.transfer(size=100_000)
    old = counts()["t/counted/record"].packets
    assert main(["chain", "insert", "counted", "extra: record('bytes')", "--at", "1"]) == 0
    assert counts()["t/counted/record"].packets == old
    assert counts()["t/counted/extra"].packets == 0
    assert main(["chain", "remove", "counted", "extra"]) == 0
    assert set(counts()) == {"t/counted/ip_pair", "t/counted/packet_type", "t/counted/record"}
    assert counts()["t/counted/record"].packets == old


def test_a_table_can_be_removed_after_its_device_went_away(lab: Lab) -> None:
    subprocess.run(["ip", "-n", lab.a.netns, "link", "add", "gone0", "type", "veth"], check=True)
    text = policy(table="t", device="gone0", peer="10.0.1.2")
    apply.apply(file.loads(text), lab.a.netns)
    subprocess.run(["ip", "-n", lab.a.netns, "link", "del", "gone0"], check=True)
    (dead,) = [r for r in running.everything().values() if r.description.hook == "ingress"]
    assert dead.detached or dead.link is None
    assert any("gone0" in finding.what for finding in health.findings())
    apply.remove("t")


def test_a_glob_may_match_nothing_now_and_is_attached_when_its_device_comes(lab: Lab) -> None:
    text = policy(table="t", device="late*", peer="10.0.1.2")
    assert apply.apply(file.loads(text), lab.a.netns).done == []
    subprocess.run(["ip", "-n", lab.a.netns, "link", "add", "late0", "type", "veth"], check=True)
    try:
        (outcome,) = apply.reattach()
        assert {one.device for one in outcome.done} == {"late0"}
        apply.remove("t")
    finally:
        subprocess.run(["ip", "-n", lab.a.netns, "link", "del", "late0"], check=True)


def test_a_foreign_program_on_the_hook_stays_and_goes_on_running(lab: Lab) -> None:
    device = devices.find(namespaces.resolve(lab.a.netns), lab.paths[0].device_a)
    unspecified = encode([Instruction(MOV64_IMM, R0, imm=-1), Instruction(EXIT)])
    with pybpf.load_program("sched_cls", unspecified, name="other") as program:
        attach = lambda: pybpf.Link.attach_tcx(program, device.ifindex, True)  # noqa: E731
        with namespaces.call(namespaces.resolve(lab.a.netns), attach) as link:
            apply.apply(table(lab), lab.a.netns)
            lab.transfer(size=100_000)
            assert counts()["t/counted/record"].packets > 0
            apply.remove("t")
            assert link.info.program_id == program.id


def test_list_prints_counters_and_json_with_a_schema(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    apply.apply(table(lab), lab.a.netns)
    lab.transfer(size=100_000)
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert 'policy "counted" {' in shown
    assert "3 actor    record(what=[packets, bytes])" in shown
    assert main(["list", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["schema"] == 1
    program = next(one for one in data["tables"][0]["programs"] if one["hook"] == "ingress")
    assert program["backend"] == "tc"
    assert program["policies"][0]["stages"][-1]["packets"] > 0


def test_diff_tells_drift_by_its_exit_code(
    lab: Lab, tmp_path: File, capsys: pytest.CaptureFixture[str]
) -> None:
    end = lab.paths[0]
    path = tmp_path / "t.toml"
    path.write_text(policy(table="t", device=end.device_a, peer=end.b.address(4)))
    assert main(["apply", str(path), "--netns", lab.a.netns]) == 0
    assert main(["diff", str(path), "--netns", lab.a.netns]) == 0
    assert main(["tune", "counted", "packet_type", "types=[data]"]) == 0
    capsys.readouterr()
    assert main(["diff", str(path), "--netns", lab.a.netns]) == 1
    assert "-when = " in capsys.readouterr().out


def test_tuning_the_expression_swaps_it_in_the_running_policy(lab: Lab) -> None:
    apply.apply(table(lab), lab.a.netns)
    assert main(["tune", "t/counted", "when=packet_type('data') or packet_type('ack')"]) == 0
    assert set(counts()) == {"t/counted/packet_type", "t/counted/packet_type#2", "t/counted/record"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["remove", "tt"], "there is no table 'tt'\nDid you mean 't'?"),
        (["remove", "t", "cuonted"], "table 't' has no policy 'cuonted'\nDid you mean 'counted'?"),
        (["tune", "cuonted", "record", "what=[rtt]"], "there is no running policy 'cuonted'"),
        (
            ["tune", "counted", "recrod", "what=[rtt]"],
            "policy 'counted' has no stage 'recrod'\nDid you mean 'record'?",
        ),
        (["tune", "counted", "record", "what"], "'what' is no parameter with a value"),
        (["tune", "counted", "record", "waht=[rtt]"], "did you mean 'what'?"),
        (["tune", "counted", "record"], "there is nothing to change about stage 'record'"),
        (["chain", "insert", "counted", "recrod()"], "there is no actor 'recrod'"),
        (["chain", "insert", "counted", "record()", "--at", "7"], "none can come to place 7"),
        (["chain", "remove", "counted", "record"], "policy 'counted' would have no actor left"),
        (["list", "tt"], "there is no table 'tt'"),
    ],
)
def test_a_wrong_word_is_refused_in_a_sentence_and_changes_nothing(
    lab: Lab, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    apply.apply(table(lab), lab.a.netns)
    before = programs()
    capsys.readouterr()
    assert main(words) == 1
    complaint = capsys.readouterr().err
    assert said in complaint
    assert len(complaint.splitlines()) <= 6
    assert programs() == before
