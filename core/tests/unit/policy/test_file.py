# SPDX-License-Identifier: Apache-2.0
"""The policy file as it is meant to be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from emptcp.policy import file, model, text
from emptcp.policy.model import And, Goto, InSet, Keyword, Listing, Not, Scalar, Select, StageSpec

EXAMPLE = """
table = "home"

[[policy]]
name = "slow path is backup for bulk"
hook = "ingress"
dev  = ["wwan*"]
when = "subflow in @bulk and not packet_type('syn')"
do   = ["record('rtt', 'bytes')", "set_backup(on=true)"]

[set.bulk]
key = "subflow"
size = 65536
"""


def test_the_file_of_the_documentation_reads_as_it_says() -> None:
    table = file.loads(EXAMPLE, "home.toml")
    syn = StageSpec("selector", "packet_type", (Scalar("syn"),))
    assert table == model.Table(
        name="home",
        policies=(
            model.Policy(
                name="slow path is backup for bulk",
                table="home",
                hooks=("ingress",),
                devices=("wwan*",),
                when=And((InSet("subflow", "bulk"), Not(Select(syn)))),
                do=(
                    StageSpec("actor", "record", (Scalar("rtt"), Scalar("bytes"))),
                    StageSpec("actor", "set_backup", (), (Keyword("on", Scalar("true")),)),
                ),
            ),
        ),
        sets=(model.Set("bulk", "subflow", 65536),),
    )
    assert table.source == "home.toml"


def test_every_key_of_a_policy_is_read() -> None:
    table = file.loads("""
        table = "t"
        engine = "tail"
        exact = true
        guard_window = "1min"
        requires = ["emptcp", "emptcp-actor-drop >= 0.1, <1"]
        [[policy]]
        name = "p"
        hook = ["ingress", "egress"]
        dev = "eth0"
        netns = "lab"
        backend = "tc"
        optional = true
        unsafe = true
        when = "a"
        do = "goto slow"
        [chain.slow]
        do = ["b", "c"]
        """)
    policy = table.policies[0]
    assert (table.engine, table.exact, policy.engine) == ("tail", True, "tail")
    assert table.guard_window == 60 * 10**9
    assert [str(one) for one in table.requires] == ["emptcp", "emptcp-actor-drop>=0.1,<1"]
    assert str(table.requires[1].where) == "line 6, column 31"
    assert (policy.hooks, policy.devices, policy.netns) == (("ingress", "egress"), ("eth0",), "lab")
    assert (policy.backend, policy.optional, policy.unsafe) == ("tc", True, True)
    assert policy.do == (Goto("slow"),)
    assert [actor.name for actor in model.actors(table, policy.do)] == ["b", "c"]


def test_a_policy_without_when_takes_every_mptcp_packet() -> None:
    table = file.loads('table="t"\n[[policy]]\nname="p"\nhook="egress"\ndev="x"\ndo=["a"]')
    assert table.policies[0].when is None


def test_a_pid_may_name_the_namespace() -> None:
    table = file.loads('table="t"\n[[policy]]\nname="p"\nhook="egress"\ndev="x"\nnetns=42\ndo=["a"]')
    assert table.policies[0].netns == "42"


def test_a_file_with_nothing_but_a_table_is_an_empty_table() -> None:
    assert file.loads('table = "home"') == model.Table("home")


def test_sets_maps_paths_and_controllers_are_declared_data() -> None:
    table = file.loads("""
        table = "t"
        [set.s]
        key = "subflow"
        timeout = "5min"
        lru = true
        entries = ["10.0.0.1:1-10.0.0.2:2"]
        [map.m]
        key = "connection"
        type = "rate"
        size = 10
        entries = { "a" = "10mbit", b = 5 }
        [path.p]
        dev = "wwan0"
        links = ["lte"]
        rate = "20mbit"
        cost = 3
        [[controller]]
        name = "c"
        use = "ecf"
        when = "subflow in @s"
        paths = ["p"]
        netns = 17
        interval = "50ms"
        steers = "peer"
        on_failure = "withdraw"
        with = { gain = "5%", fast = true, order = ["a", 2] }
        """)
    assert table.sets == (model.Set("s", "subflow", 65536, 300 * 10**9, True, ("10.0.0.1:1-10.0.0.2:2",)),)
    assert table.maps == (model.Map("m", "connection", "rate", 10, entries=(("a", "10mbit"), ("b", "5"))),)
    assert table.paths == (model.Path("p", ("wwan0",), links=("lte",), rate="20mbit", cost="3"),)
    one = table.controllers[0]
    assert (one.netns, one.interval, one.steers, one.on_failure) == ("17", "50ms", "peer", "withdraw")
    own = one.parameters
    assert [one.name for one in own] == ["gain", "fast", "order"]
    assert own[1].value == Scalar("true")
    assert isinstance(own[2].value, Listing)
    assert own[2].value.items == (Scalar("a"), Scalar("2"))


def test_a_file_on_disk_is_read_with_any_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "home.toml"
    path.write_bytes(EXAMPLE.replace("\n", "\r\n").encode())
    assert file.load(path) == file.loads(EXAMPLE)
    assert file.load(path).source == str(path)


def test_places_point_into_strings_also_on_several_lines() -> None:
    table = file.loads(
        'table = "t"\n[[policy]]\nname = "p"\nhook = "ingress"\ndev = "x"\n'
        'when = """\n  a(k=1)\n  and \\\n     b\n"""\ndo = ["c", "lbl: d(x=y)"]\n',
        "t.toml",
    )
    policy = table.policies[0]
    first, second = model.selectors(policy.when)
    assert (str(first.where), str(first.keywords[0].where)) == ("t.toml:7:3", "t.toml:7:5")
    assert str(second.where) == "t.toml:9:6"
    actor = policy.do[1]
    assert isinstance(actor, StageSpec)
    assert (str(actor.where), str(actor.keywords[0].value.where)) == ("t.toml:11:18", "t.toml:11:22")


@pytest.mark.parametrize(("line", "carrier"), [("", "per-cpu"), ('tail.carrier = "metadata"', "metadata")])
def test_the_carrier_of_the_chain_context_is_kept(line: str, carrier: str) -> None:
    policy = '[[policy]]\nname = "p"\nhook = "ingress"\ndev = "eth0"\ndo = "a"\n'
    table = file.loads(f'table = "t"\nengine = "tail"\n{line}\n{policy}')
    assert table.carrier == carrier
    assert file.loads(text.table_text(table)) == table
    assert {one.engine for one in table.policies} == {table.engine}
