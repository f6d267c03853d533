# SPDX-License-Identifier: Apache-2.0
"""What is read but not carried out yet is refused in one sentence, at its place."""

from __future__ import annotations

import pytest

from emptcp.errors import EmptcpError
from emptcp.policy import file
from emptcp.policy.support import refuse_unsupported

POLICY = 'table = "t"\n[[policy]]\nname = "p"\nhook = "ingress"\ndev = "x"\nwhen = "a"\ndo = ["b"]\n'
DECLARED = '[set.s]\nkey = "subflow"\n[map.m]\nkey = "subflow"\ntype = "rate"\n[path.p]\ndev = "x"\n'


def test_sets_maps_and_unused_paths_are_no_obstacle() -> None:
    used = POLICY.replace('"a"', '"subflow in @s and a(k=subflow @m)"').replace('"b"', '"b(subflow @m)"')
    refuse_unsupported(file.loads(POLICY + DECLARED))
    refuse_unsupported(file.loads(used + DECLARED))


def test_the_hook_socket_is_refused() -> None:
    table = file.loads(POLICY.replace('"ingress"', '"socket"') + DECLARED, "t.toml")
    with pytest.raises(EmptcpError) as caught:
        refuse_unsupported(table)
    assert "hook 'socket' of policy 'p' is not carried out" in str(caught.value)
