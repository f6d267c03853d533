# SPDX-License-Identifier: Apache-2.0
"""What is read but not carried out yet is refused in one sentence, at its place."""

from __future__ import annotations

import pytest

from emptcp.errors import EmptcpError
from emptcp.policy import file
from emptcp.policy.support import refuse_unsupported

POLICY = 'table = "t"\n[[policy]]\nname = "p"\nhook = "ingress"\ndev = "x"\nwhen = "a"\ndo = ["b"]\n'
DECLARED = '[set.s]\nkey = "subflow"\n[map.m]\nkey = "subflow"\ntype = "rate"\n[path.p]\ndev = "x"\n'


def test_declared_but_unused_sets_maps_and_paths_are_no_obstacle() -> None:
    refuse_unsupported(file.loads(POLICY + DECLARED))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"a"', '"subflow in @s"', "t.toml:6:9: 'subflow in @s' is not carried out"),
        ('"a"', '"a(k=subflow @m)"', "t.toml:6:13: a value read from a map, 'subflow @m'"),
        ('["b"]', '["b(subflow @m)"]', "t.toml:7:10: a value read from a map, 'subflow @m'"),
        ('["b"]', '["b"]\n[chain.c]\ndo=["b(subflow @m)"]', "t.toml:9:8: a value read from a map"),
        ('"ingress"', '"socket"', "hook 'socket' of policy 'p' is not carried out"),
        ('["b"]', '["b"]\n[[controller]]\nname="c"\nuse="x"', "controller 'c' is not carried out"),
    ],
)
def test_its_use_is_refused(old: str, new: str, sentence: str) -> None:
    table = file.loads(POLICY.replace(old, new) + DECLARED, "t.toml")
    with pytest.raises(EmptcpError) as caught:
        refuse_unsupported(table)
    assert sentence in str(caught.value)
