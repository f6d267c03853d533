# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from emptcp.api import EmptcpError
from emptcp.plugins.catalog import Catalog
from emptcp.policy import model
from emptcp.policy.file import loads
from emptcp_actor_set_backup.hooks import emptcp_validate

BOTH = '["ingress", "egress"]'


def validate(actor: str, hook: str) -> None:
    table = loads(f'table = "t"\n[[policy]]\nname = "p"\nhook = {hook}\ndev = "e"\ndo = ["{actor}"]')
    (policy,) = table.policies
    (spec,) = model.actors(table, policy.do)
    emptcp_validate(Catalog.of_enabled().bind(spec), policy)


@pytest.mark.parametrize(
    ("actor", "hook"),
    [
        ("set_backup()", '"ingress"'),
        ("set_backup(on=false)", '"egress"'),
        ("set_backup(true, 'us')", '"ingress"'),
        ("set_backup(true, steers='peer')", '"egress"'),
        ("set_backup(true, steers='both')", BOTH),
        ("set_backup(true, steers='peer')", BOTH),
    ],
)
def test_a_hook_that_reaches_who_is_to_be_steered_is_fine(actor: str, hook: str) -> None:
    validate(actor, hook)


@pytest.mark.parametrize(
    ("actor", "hook", "end", "needed", "line"),
    [
        ("set_backup(steers='us')", '"egress"', "us", "ingress", 'hook = ["egress", "ingress"]'),
        ("set_backup(steers='peer')", '"ingress"', "peer", "egress", 'hook = ["ingress", "egress"]'),
        ("set_backup(steers='both')", '"ingress"', "peer", "egress", 'hook = ["ingress", "egress"]'),
    ],
)
def test_a_missing_hook_is_named_with_the_line_to_write(
    actor: str, hook: str, end: str, needed: str, line: str
) -> None:
    with pytest.raises(EmptcpError) as refused:
        validate(actor, hook)
    assert "policy 'p'" in refused.value.sentence
    assert f"steers '{end}'" in refused.value.sentence
    assert f"hook '{needed}'" in refused.value.sentence
    assert line in refused.value.fix
    assert refused.value.where


@pytest.mark.parametrize(
    "actor", ["set_backup(steers='them')", "set_backup(on=maybe)", "set_backup(off=true)"]
)
def test_what_the_manifest_does_not_allow_is_refused(actor: str) -> None:
    with pytest.raises(EmptcpError):
        validate(actor, BOTH)
