# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest

from emptcp.api import EmptcpError, FlowEntry
from emptcp.plugins.catalog import Catalog
from emptcp.policy import model
from emptcp.policy.file import loads
from emptcp_actor_record import hooks
from emptcp_actor_record.hooks import emptcp_metrics, emptcp_validate
from emptcp_actor_record.tracks import FLOW_BYTES, What

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
        ("record('rtt_histogram')", '["ingress", "egress"]'),
        ("record('bytes')", '"egress"'),
    ],
)
def test_a_hook_that_sees_what_is_wanted_is_fine(actor: str, hook: str) -> None:
    validate(actor, hook)


@pytest.mark.parametrize("what", ["rtt", "rtt_histogram"])
def test_rtt_at_egress_alone_is_refused_with_the_line_to_write(what: str) -> None:
    with pytest.raises(EmptcpError, match=rf"policy 'p'.*record\('{what}'\)") as refused:
        validate(f"record('{what}', 'bytes')", '"egress"')
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


def track(since: int = 0, rtts: tuple[int, ...] = (0,) * 16) -> bytes:
    return struct.pack("=QI4x16I", since, What.RTT_HISTOGRAM, *rtts).ljust(FLOW_BYTES, b"\0")


def kept(monkeypatch: pytest.MonkeyPatch, value: bytes) -> None:
    """Let the plugin's map have this for ``entry()``."""
    monkeypatch.setattr(hooks, "_tracks", lambda: {bytes(4): value})


def test_the_histograms_steps_are_named_by_where_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    kept(monkeypatch, track(rtts=tuple(range(1, 17))))
    (found,) = emptcp_metrics([entry(0, 0, 0, 0, 0, 0, 0, 0)])
    edges = [
        "128us",
        "256us",
        "512us",
        "1ms",
        "2ms",
        "4ms",
        "8ms",
        "16ms",
        "32ms",
        "65ms",
        "131ms",
        "262ms",
        "524ms",
        "1s",
        "2s",
    ]
    assert found == {f"rtts_below_{edge}": n for n, edge in enumerate(edges, 1)} | {"rtts_above_2s": 16}


def test_what_was_kept_of_a_connection_before_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    kept(monkeypatch, track(since=7, rtts=(1,) * 16))
    assert list(emptcp_metrics([entry(1, 0, 0, 0, 0, 0, 0, 0)])) == [{"packets_0": 1}]
