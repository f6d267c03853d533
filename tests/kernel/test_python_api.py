# SPDX-License-Identifier: Apache-2.0
"""A table built in Python is applied just like the file that says the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from emptcp.chain import apply, running
from emptcp.errors import EmptcpError
from emptcp.policy.build import (
    Both,
    Egress,
    Goto,
    Ingress,
    IpPair,
    PacketType,
    Policy,
    Record,
    SetBackup,
    Table,
)

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

FILE = """
table = "t"

[[policy]]
name = "watched"
hook = "ingress"
dev = ["left0"]
when = "ip_pair(saddr=10.0.0.0/8) and not (packet_type('syn') or packet_type('rst', 'fin'))"
do = ["kept: record('rtt', 'bytes')"]

[[policy]]
name = "steered"
hook = ["ingress", "egress"]
dev = ["left*"]
do = ["record('packets')", "goto slow"]

[chain.slow]
do = ["set_backup(on=true, steers='us')"]
"""


def built() -> Any:
    return Table(
        "t",
        [
            Policy(
                "watched",
                Ingress("left0"),
                IpPair(saddr="10.0.0.0/8") & ~(PacketType("syn") | PacketType("rst", "fin")),
                Record("rtt", "bytes").label("kept"),
            ),
            Policy("steered", Both("left*"), None, [Record("packets"), Goto("slow")]),
        ],
        chains={"slow": SetBackup(on=True, steers="us")},
    )


def test_it_is_the_files_table(netns: Callable[[], str], emptcp: Any, write: Callable[..., str]) -> None:
    name = netns()
    first = apply.apply(built(), name)
    assert {(one.action, one.hook) for one in first.done} == {("attach", "ingress"), ("attach", "egress")}
    listed = emptcp("list").out
    before = {one.location: one.program.id for one in running.everything().values()}

    path = write(FILE)
    assert emptcp("diff", path, "--netns", name).code == 0
    again = emptcp("apply", path, "--netns", name)
    assert "table t is as the file says" in again.out
    assert {one.location: one.program.id for one in running.everything().values()} == before
    assert emptcp("list").out == listed
    assert emptcp("tune", "watched", "kept", "what=[packets]").code == 0
    assert apply.apply(built(), name, dry_run=True).changed
    assert apply.remove("t").changed


def test_what_it_says_is_checked_like_a_file(netns: Callable[[], str]) -> None:
    name = netns()
    misspelt = Table("t", [Policy("p", Ingress("left0"), None, Record("bites"))])
    with pytest.raises(EmptcpError, match="'bites'") as caught:
        apply.apply(misspelt, name)
    assert caught.value.fix == "did you mean 'bytes'?"
    # Steering this host takes packets that come in.
    with pytest.raises(EmptcpError, match="takes hook 'ingress'"):
        apply.apply(Table("t", [Policy("p", Egress("left0"), None, SetBackup(steers="us"))]), name)
    with pytest.raises(EmptcpError, match="is there twice"):
        Table("t", [Policy("p", Ingress("left0"), None, Record("rtt"))] * 2)
    assert running.everything() == {}
