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
"""
FILE = """
table = "home"
[path.dsl]
dev = "eth0"
[path.lte]
dev = ["wwan*", "eth0"]
[path.sat]
local = "10.0.0.1"
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
    assert list(controllers.declared(table)) == [("c", "backup"), ("c", "rate")]


def test_only_what_it_sets_is_made(catalog: Catalog) -> None:
    assert [one.name for one in made(catalog, "bits").policies] == ["c: backup"]


def test_who_steers_the_peer_works_where_packets_leave_and_paces_nobody(catalog: Catalog) -> None:
    (backup,) = made(catalog, steers="peer").policies
    assert backup.hooks == ("egress",)
    assert "steers=[peer]" in text.step_text(backup.do[0])


@pytest.mark.parametrize("paths", ["[]", '["dsl", "sat"]'])
def test_without_devices_of_all_paths_it_is_every_device(catalog: Catalog, paths: str) -> None:
    assert made(catalog, paths=paths).policies[0].devices == ("*",)


def test_what_was_made_is_read_back_and_made_once(catalog: Catalog) -> None:
    table = made(catalog)
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
