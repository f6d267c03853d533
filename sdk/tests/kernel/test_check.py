# SPDX-License-Identifier: Apache-2.0
"""`emptcp-sdk check` as root: stages are loaded wherever they work, and measured there."""

from __future__ import annotations

from pathlib import Path

import pytest

from emptcp_sdk.check.run import check
from emptcp_sdk.project.new import new

pytestmark = pytest.mark.kernel


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return new({"name": "mine", "kind": "actor"}, tmp_path / "mine", defaults=True)


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize("kind", ["selector", "actor"])
def test_every_place_is_loaded_and_measured(tmp_path: Path, kind: str) -> None:
    """The plugin is not installed, and nobody enabled it."""
    report = check(new({"name": "mine", "kind": kind}, tmp_path / "mine", defaults=True))
    assert (report.findings, report.loaded) == ([], True)
    by_place = {one.place: one for one in report.measured if one.ns is not None}
    assert list(by_place) == [
        "ingress, xdp, fused",
        "ingress, xdp, tail",
        "ingress, tc, fused",
        "ingress, tc, tail",
        "egress, tc, fused",
        "egress, tc, tail",
    ]
    assert all((one.steps or 0) > 1000 for place, one in by_place.items() if "fused" in place)
    assert any(one.ns for one in by_place.values())


def test_what_the_verifier_refuses_is_told_at_its_c_line(package: Path) -> None:
    source = package / "src/emptcp_actor_mine/mine.bpf.c"
    replace(
        source,
        "\temptcp_cap_window",
        "\tif (*(volatile int *)(long)param->bytes == 1)\n\t\treturn EMPTCP_NEXT;\n\temptcp_cap_window",
    )
    report = check(package)
    (found,) = report.findings
    assert (found.rule, found.where) == ("verifier", "src/emptcp_actor_mine/mine.bpf.c:13")
    assert "invalid mem access" in found.sentence
    assert "read packet pointers again" in found.fix
    assert report.failed


def test_a_stage_without_a_place_is_told(package: Path) -> None:
    manifest = package / "src/emptcp_actor_mine/emptcp.toml"
    replace(manifest, 'hooks = ["ingress", "egress"]', 'hooks = ["egress"]\nbackends = ["xdp"]')
    (found,) = check(package).findings
    assert (found.rule, found.where) == ("load", "src/emptcp_actor_mine/mine.bpf.c:9")
    assert found.sentence == "actor 'mine' works by no back-end of its hook egress"
