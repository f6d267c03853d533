# SPDX-License-Identifier: Apache-2.0
"""A guest's live connection behind a hypervisor, of whose links it knows nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from emptcp.chain import apply
from emptcp.lab import traffic
from emptcp.lab.hypervisor import LINKS, Behind, behind_hypervisor
from emptcp.lab.resident import resident, wait_for
from emptcp.policy import file
from emptcp_sdk.testing import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(240)]

TABLE = """
table = "spread"
[path.left]
dev = "link1"
[path.right]
dev = "link2"
[[controller]]
name = "spread"
use = "spread"
paths = ["left", "right"]
"""


def grows(made: Behind, *links: str) -> None:
    """Wait until each of these links has carried much more."""
    before = made.hypervisor.sent()

    def grew() -> bool:
        now = made.hypervisor.sent()
        return all(now[one] - before[one] > 3_000_000 for one in links)

    wait_until(grew, 40, made.hypervisor.sent)


def test_a_guest_s_subflows_leave_by_both_links_until_the_table_goes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / f"emt{os.getpid()}-spread"))
    with behind_hypervisor(name=f"m{os.getpid()}") as made, resident("--no-guard") as process:
        apply.apply(file.loads(TABLE), made.hypervisor.netns)
        wait_for(process, b" ticks every ")
        sender = traffic.start(made.guest, made.peer, made.addresses[0])
        grows(made, *LINKS)
        apply.remove("spread")
        grows(made, "link1")
        rest = made.hypervisor.sent()["link2"]
        grows(made, "link1")
        assert made.hypervisor.sent()["link2"] - rest < 1_000_000
        assert sender.poll() is None
