# SPDX-License-Identifier: Apache-2.0
"""The round-trip time that record measures, against one that is known."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from emptcp.chain import apply, flows, pins
from emptcp.hooks import namespaces
from emptcp.lab.path import Path as LabPath
from emptcp.lab.topology import Lab, two_hosts
from emptcp.policy import file
from emptcp_actor_record.hooks import emptcp_metrics

pytestmark = [pytest.mark.kernel, pytest.mark.traffic]

POLICY = """
table = "measure"
[[policy]]
name = "all"
hook = ["ingress", "egress"]
dev = "path*"
do = ["record('packets', 'bytes', 'rtt')"]
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    paths = [LabPath(rate=50e6, rtt=0.010), LabPath(rate=50e6, rtt=0.040)]
    with two_hosts(paths, name=f"t{os.getpid()}") as built:
        yield built


@pytest.fixture(autouse=True)
def own_emptcp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / f"emt{os.getpid()}-record"))
    yield
    if apply.tables.names():
        apply.remove("measure")


def test_it_is_that_of_each_path_and_all_bytes_are_counted(lab: Lab) -> None:
    apply.apply(file.loads(POLICY), lab.a.netns)
    # Long enough for several round trips on each path.
    size = 5_000_000
    assert lab.transfer(size).intact
    tree = pins.find()
    assert tree is not None
    entries = flows.entries(tree, namespaces.resolve(lab.a.netns).cookie)
    by_path = {
        str(entry.endpoints[0][0]): found
        for entry, found in zip(entries, emptcp_metrics(entries), strict=True)
    }
    for path in lab.paths:
        metrics = by_path[path.a.address(4)]
        # Timestamps count in milliseconds.
        assert path.rtt - 0.001 <= metrics["rtt_min"] < path.rtt + 0.030
        assert metrics["rtt_min"] <= metrics["rtt_mean"] < 1
        assert metrics["rtt_min"] <= metrics["rtt_last"] < 1
    for end in (0, 1):
        assert sum(metrics[f"bytes_{end}"] for metrics in by_path.values()) > size
        assert all(metrics[f"packets_{end}"] > 0 for metrics in by_path.values())
