# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest

from emptcp.api import EmptcpError, FlowEntry
from emptcp.plugins.catalog import Catalog
from emptcp.policy import model
from emptcp.policy.file import loads
from emptcp_actor_record.hooks import emptcp_metrics, emptcp_validate

ENDS = ((IPv4Address("10.0.0.1"), 1), (IPv4Address("10.0.0.2"), 2))


def validate(actor: str, hook: str) -> None:
    table = loads(f'table = "t"\n[[policy]]\nname = "p"\nhook = {hook}\ndev = "e"\ndo = ["{actor}"]')
    (policy,) = table.policies
    (spec,) = model.actors(table, policy.do)
    emptcp_validate(Catalog.of_enabled().bind(spec), policy)


@pytest.mark.parametrize(
    ("actor", "hook"),
    [
        ("record('rtt')", '"ingress"'),
        ("record('rtt', 'bytes')", '["ingress", "egress"]'),
        ("record('bytes')", '"egress"'),
    ],
)
def test_a_hook_that_sees_what_is_wanted_is_fine(actor: str, hook: str) -> None:
    validate(actor, hook)


def test_rtt_at_egress_alone_is_refused_with_the_line_to_write() -> None:
    with pytest.raises(EmptcpError, match=r"policy 'p'.*record\('rtt'\)") as refused:
        validate("record('rtt')", '"egress"')
    assert 'hook = ["egress", "ingress"]' in refused.value.fix
    assert refused.value.where


def entry(*numbers: int) -> FlowEntry:
    return FlowEntry(ENDS, since=0, state={"record": struct.pack("=5Q3I", *numbers).ljust(80, b"\0")})


def test_metrics_are_in_base_units() -> None:
    (found,) = emptcp_metrics([entry(1, 2, 300, 4000, 90_000, 3, 20_000, 40_000)])
    assert found == pytest.approx(
        {
            "packets_0": 1,
            "packets_1": 2,
            "bytes_0": 300,
            "bytes_1": 4000,
            "rtt_min": 0.020,
            "rtt_mean": 0.030,
            "rtt_last": 0.040,
        }
    )


def test_what_was_never_seen_is_no_metric() -> None:
    assert list(emptcp_metrics([entry(0, 0, 0, 0, 0, 0, 0, 0), FlowEntry(ENDS, since=0)])) == [{}, {}]
