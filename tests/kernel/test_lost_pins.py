# SPDX-License-Identifier: Apache-2.0
"""The BPF file system is unmounted under the pins: told, repaired, and no second program beside the first."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from emptcp.chain import off, pins, running
from emptcp.hooks import devices, foreign, namespaces
from emptcp_sdk.testing import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

POLICY = """\
table = "t"
engine = "{engine}"
[[policy]]
name = "p"
hook = ["ingress", "egress"]
dev = "left0"
backend = "{backend}"
do = ["record('packets')"]
"""
NO_LINKS = "tcx,xdp_link"

Write = Callable[..., str]


def attached(netns: str) -> list[tuple[str, int]]:
    namespace = namespaces.resolve(netns)
    device = devices.find(namespace, "left0")
    places = namespaces.call(namespace, lambda: list(foreign._places(device)))
    return sorted((hook, number) for hook, _, number in places)


def unmount() -> None:
    """Take the instance's pins away, and the BPF file system if it is the instance's own.

    The pins first: a process of another test may have a copy of the mount, which would keep them.
    """
    tree, folder = pins.find(), pins.run_folder() / "bpf"
    assert tree is not None
    shutil.rmtree(tree.root.parent)
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=10)


def ends_with(netns: str, count: int) -> None:
    """Wait until so many links are left: they end a moment after their last pin."""
    wait_until(lambda: len(attached(netns)) == count, told=lambda: attached(netns))


def problems(emptcp: Any) -> list[str]:
    checks = json.loads(emptcp("doctor", "--json").out)["checks"]
    return [one["text"] for one in checks if one["state"] == "problem"]


@pytest.mark.parametrize("engine", ["fused", "tail"])
@pytest.mark.parametrize("backend", ["tc", "xdp", "xdp-generic"])
@pytest.mark.parametrize("missing", ["", NO_LINKS], ids=["links", "no links"])
@pytest.mark.parametrize("mended", ["apply", "repair"])
def test_lost_pins_are_told_and_everything_is_attached_again_once(
    netns: Callable[[], str],
    emptcp: Any,
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    backend: str,
    missing: str,
    mended: str,
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", missing)
    name, path = netns(), write(POLICY.format(engine=engine, backend=backend))
    assert emptcp("apply", path, "--netns", name).code == 0
    before = attached(name)
    unmount()
    ends_with(name, 2 if missing else 0)
    listed = emptcp("list")
    assert (listed.code, listed.out) == (0, "table t {\n  runs nowhere (see: emptcp doctor)\n}\n")
    told = "\n".join(problems(emptcp))
    assert "no pin of a program is left: the BPF file system was unmounted or emptied" in told
    assert "table t should run at ingress of left0 and does not" in told
    if mended == "apply":
        assert emptcp("apply", path, "--netns", name).code == 0
    else:
        assert emptcp("doctor", "--repair").code == 0
    now = attached(name)
    assert [hook for hook, _ in now] == ["egress", "ingress"]
    assert {number for _, number in now} == {one.program.id for one in running.everything().values()}
    assert now != before
    assert problems(emptcp) == []
    assert emptcp("remove", "t").code == 0
    assert attached(name) == []


def test_pins_that_are_lost_while_everything_is_off_take_the_programs_with_them(
    netns: Callable[[], str], emptcp: Any, write: Write
) -> None:
    name, path = netns(), write(POLICY.format(engine="fused", backend="tc"))
    assert emptcp("apply", path, "--netns", name).code == 0
    assert emptcp("off").code == 0
    unmount()
    assert any("no pin of a program is left" in problem for problem in problems(emptcp))
    assert emptcp("on").code == 0
    assert (attached(name), off.read()) == ([], off.Off())
    assert emptcp("doctor", "--repair").code == 0
    assert len(attached(name)) == 2


@pytest.mark.parametrize("backend", ["tc", "xdp"])
def test_a_table_whose_pins_are_lost_is_removed_from_its_device(
    netns: Callable[[], str], emptcp: Any, write: Write, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", NO_LINKS)
    name, path = netns(), write(POLICY.format(engine="fused", backend=backend))
    assert emptcp("apply", path, "--netns", name).code == 0
    unmount()
    ends_with(name, 2)
    assert emptcp("remove", "t").code == 0
    assert attached(name) == []
    assert problems(emptcp) == []
