# SPDX-License-Identifier: Apache-2.0
"""The policies and maps that a table's controllers need."""

from __future__ import annotations

import pytest

from emptcp.chain import controllers
from emptcp.errors import EmptcpError
from emptcp.plugins import manifest
from emptcp.plugins.catalog import Catalog
from emptcp.plugins.discovery import ENABLED, Plugin
from emptcp.policy import file, model, text

MANIFEST = """
schema = 1
name = "loops"
[[controller]]
name = "both"
class = "loops:Both"
[[controller]]
name = "bits"
class = "loops:Bits"
sets = "backup"
[[controller]]
name = "opens"
class = "loops:Opens"
sets = "block"
blocked = true
[[controller]]
name = "blocks"
class = "loops:Blocks"
sets = "block"
[[controller]]
name = "spreads"
class = "loops:Spreads"
sets = "steer"
[[controller]]
name = "hops"
class = "loops:Hops"
sets = "steer"
end = "hop"
"""
FILE = """
table = "home"
[path.dsl]
dev = "eth0"
[path.lte]
dev = ["wwan*", "eth0"]
[path.sat]
local = "10.0.0.1"
[path.fiber]
dev = "eth1"
[[controller]]
name = "c"
use = "{use}"
when = "subflow(dport=443)"
paths = {paths}
netns = "right"
steers = "{steers}"
"""


@pytest.fixture
def catalog() -> Catalog:
    known = manifest.loads(MANIFEST)
    return Catalog([Plugin("loops", "dist-loops", "1", "loops", manifest=known, state=ENABLED)])


def made(
    catalog: Catalog, use: str = "both", paths: str = '["dsl", "lte"]', steers: str = "us"
) -> model.Table:
    return controllers.completed(file.loads(FILE.format(use=use, paths=paths, steers=steers), "f"), catalog)


def test_each_setter_has_a_map_and_a_policy_that_reads_it(catalog: Catalog) -> None:
    table = made(catalog)
    backup, rate = table.policies
    assert (backup.name, backup.hooks, backup.devices) == ("c: backup", ("ingress",), ("eth0", "wwan*"))
    assert [text.step_text(step) for step in backup.do] == ["set_backup(on=subflow @c-backup, steers=[us])"]
    assert (rate.name, rate.hooks) == ("c: rate", ("egress",))
    assert [text.step_text(step) for step in rate.do] == ["rate_limit(rate=subflow @c-rate, mode=pacing)"]
    assert {(one.netns, one.backend, one.optional, one.when) for one in table.policies} == {
        ("right", "tc", True, table.controllers[0].when)
    }
    assert [(one.name, one.key, one.type) for one in table.maps] == [
        ("c-backup", "subflow", "bool"),
        ("c-rate", "subflow", "rate"),
    ]
    assert list(controllers.declared(table, table.controllers[0])) == ["backup", "rate"]


def test_only_what_it_sets_is_made(catalog: Catalog) -> None:
    assert [one.name for one in made(catalog, "bits").policies] == ["c: backup"]


def test_who_steers_chooses_among_the_devices_of_its_paths_in_their_order(catalog: Catalog) -> None:
    table = made(catalog, "spreads", '["fiber", "dsl"]')
    (policy,) = table.policies
    assert (policy.name, policy.hooks, policy.devices) == ("c: steer", ("egress",), ("eth0", "eth1"))
    step = text.step_text(policy.do[0])
    assert step == "steer(link=subflow @c-steer, to=[eth1, eth0], by=link)"
    assert [(one.name, one.key, one.type) for one in table.maps] == [("c-steer", "subflow", "int")]
    assert list(controllers.declared(table, table.controllers[0])) == ["steer"]
    assert made(catalog, "spreads", '["fiber", "dsl"]', steers="peer").policies == ()


def test_who_is_at_a_hop_is_told_by_a_policy_behind_the_one_that_steers(catalog: Catalog) -> None:
    steer, watch = made(catalog, "hops", '["fiber", "dsl"]').policies
    assert (steer.name, watch.name) == ("c: steer", "c: watch")
    assert (watch.hooks, watch.devices) == (("ingress", "egress"), steer.devices)
    assert [text.step_text(step) for step in watch.do] == [
        "record(bytes, rtt, retransmissions, size)",
        "get_subflow()",
    ]
    assert watch.when == steer.when
    with pytest.raises(EmptcpError, match="controller 'c' steers 'peer', and 'hops' works on a hop"):
        made(catalog, "hops", '["fiber", "dsl"]', steers="peer")


@pytest.mark.parametrize("paths", ["[]", '["fiber", "lte"]', '["fiber", "sat"]'])
def test_who_steers_must_name_paths_of_one_device_each(catalog: Catalog, paths: str) -> None:
    with pytest.raises(EmptcpError, match="controller 'c' steers, and its paths are not"):
        made(catalog, "spreads", paths)


def test_who_steers_the_peer_works_where_packets_leave_and_paces_nobody(catalog: Catalog) -> None:
    (backup,) = made(catalog, steers="peer").policies
    assert backup.hooks == ("egress",)
    assert "steers=[peer]" in text.step_text(backup.do[0])


@pytest.mark.parametrize("paths", ["[]", '["dsl", "sat"]'])
def test_without_devices_of_all_paths_it_is_every_device(catalog: Catalog, paths: str) -> None:
    assert made(catalog, paths=paths).policies[0].devices == ("*",)


def test_who_opens_paths_has_a_set_of_connections_for_each_and_one_for_addresses(catalog: Catalog) -> None:
    table = made(catalog, "opens", '["dsl", "sat"]')
    addresses, dsl, _ = table.policies
    assert [(one.name, one.hooks, one.devices) for one in table.policies] == [
        ("c: block", ("ingress", "egress"), ("*",)),
        ("c: block dsl", ("ingress", "egress"), ("eth0",)),
        ("c: block sat", ("ingress", "egress"), ("*",)),
    ]
    asked = "subflow(dport=443) and packet_type(mp_join)"
    assert [text.expression_text(one.when) for one in table.policies if one.when] == [
        "subflow(dport=443) and packet_type(add_addr) and not connection in @c-allow",
        f"{asked} and not connection in @c-allow-dsl",
        f"{asked} and address(any=10.0.0.1) and not connection in @c-allow-sat",
    ]
    assert [text.step_text(one.do[0]) for one in (addresses, dsl)] == [
        "blk_subflow(joins=false)",
        "blk_subflow(addresses=false)",
    ]
    assert [(one.name, one.key) for one in table.sets] == [
        ("c-allow", "connection"),
        ("c-allow-dsl", "connection"),
        ("c-allow-sat", "connection"),
    ]
    assert list(controllers.declared(table, table.controllers[0])) == ["allow", "allow dsl", "allow sat"]


def test_who_blocks_paths_keeps_no_address_back(catalog: Catalog) -> None:
    table = made(catalog, "blocks", '["lte"]')
    (lte,) = table.policies
    assert (lte.name, lte.devices) == ("c: block lte", ("wwan*", "eth0"))
    assert lte.when is not None
    assert text.expression_text(lte.when).endswith("packet_type(mp_join) and connection in @c-block-lte")
    assert list(controllers.declared(table, table.controllers[0])) == ["block lte"]


def test_who_opens_paths_must_name_some(catalog: Catalog) -> None:
    with pytest.raises(EmptcpError, match="controller 'c' opens and blocks paths, and names none"):
        made(catalog, "opens", "[]")


@pytest.mark.parametrize("use", ["both", "opens", "blocks", "spreads", "hops"])
def test_what_was_made_is_read_back_and_made_once(catalog: Catalog, use: str) -> None:
    table = made(catalog, use, '["dsl"]' if use in ("spreads", "hops") else '["dsl", "lte"]')
    again = file.loads(text.table_text(table))
    assert again == table
    assert controllers.completed(again, catalog) == table


def test_names_that_are_taken_are_refused(catalog: Catalog) -> None:
    taken = (
        FILE.format(use="bits", paths="[]", steers="us") + '[map.c-backup]\nkey = "subflow"\ntype = "rate"\n'
    )
    with pytest.raises(EmptcpError, match="'c-backup' is needed by a controller"):
        controllers.completed(file.loads(taken), catalog)


def test_a_table_without_controllers_is_left_as_it_is(catalog: Catalog) -> None:
    table = file.loads('table = "t"\n')
    assert controllers.completed(table, catalog) is table
