# SPDX-License-Identifier: Apache-2.0
"""A step that fails in its middle leaves no pin and no attachment; what a crash left is removed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from emptcp import pybpf
from emptcp.chain import pins, program, running, tables
from emptcp.chain.instructions import EXIT, MOV64_IMM, R0, Instruction, encode
from emptcp.errors import EmptcpError
from emptcp.hooks import devices, foreign, namespaces
from emptcp.pybpf import features

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

POLICY = """\
table = "t"
engine = "{engine}"
[[policy]]
name = "p"
hook = "ingress"
dev = "left0"
backend = "{backend}"
when = "{when}"
do = ["record('rtt')"]
"""

Write = Callable[..., str]


def policy(engine: str = "fused", backend: str = "auto", when: str = "ip_pair()") -> str:
    return POLICY.format(engine=engine, backend=backend, when=when)


def attached(netns: str) -> list[int]:
    namespace = namespaces.resolve(netns)
    device = devices.find(namespace, "left0")
    return [number for _, _, number in namespaces.call(namespace, lambda: list(foreign._places(device)))]


def tree() -> pins.Pins:
    found = pins.find()
    assert found is not None
    return found


def pinned() -> set[str]:
    """Every pin, but for the number in a program array's name."""
    root = tree().root
    found = (str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())
    return {name.partition("stages_")[0] for name in found}


@pytest.mark.parametrize("engine", ["fused", "tail"])
def test_a_refused_attachment_leaves_nothing(
    netns: Callable[[], str], emptcp: Any, write: Write, engine: str
) -> None:
    name = netns()
    namespace = namespaces.resolve(name)
    device = devices.find(namespace, "left0")
    code = encode([Instruction(MOV64_IMM, R0, imm=2), Instruction(EXIT)])
    with pybpf.load_program("xdp", code, name="other") as other:
        attach = lambda: pybpf.Link.attach_xdp(other, device.ifindex)  # noqa: E731
        with namespaces.call(namespace, attach):
            done = emptcp("apply", write(policy(engine, "xdp")), "--netns", name)
            assert done.code == 1
            assert "the XDP program 'other'" in done.err
            assert attached(name) == [other.id]
    assert not tree().root.exists()
    assert tables.unfinished() == []


def test_a_place_that_was_reserved_is_given_up_with_its_program(
    netns: Callable[[], str], emptcp: Any, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not features.has("tcx"):
        pytest.skip(features.reason("tcx"))
    name = netns()
    held: list[int] = []

    def refuse(_prepared: program.Prepared) -> NoReturn:
        end = time.monotonic() + 10
        while not held and time.monotonic() < end:
            held.extend(attached(name))
        raise EmptcpError("the kernel takes no more programs")

    monkeypatch.setattr(program.Prepared, "load", refuse)
    done = emptcp("apply", write(policy(backend="tc")), "--netns", name)
    assert done.code == 1
    assert held
    assert "takes no more programs" in done.err
    assert attached(name) == []
    assert not tree().root.exists()


@pytest.mark.parametrize("engine", ["fused", "tail"])
def test_an_attachment_that_can_not_be_pinned_is_taken_away(
    netns: Callable[[], str], emptcp: Any, write: Write, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    name = netns()
    _refuse_pins(monkeypatch)
    done = emptcp("apply", write(policy(engine)), "--netns", name)
    assert done.code == 1
    assert "no room for a pin" in done.err
    assert attached(name) == []
    assert not tree().root.exists()


@pytest.mark.parametrize("engine", ["fused", "tail"])
def test_a_switch_that_can_not_be_pinned_is_taken_back(
    netns: Callable[[], str], emptcp: Any, write: Write, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    name = netns()
    assert emptcp("apply", write(policy(engine, "tc")), "--netns", name).code == 0
    before, files = attached(name), pinned()
    with monkeypatch.context() as patch:
        _refuse_pins(patch, times=1)
        done = emptcp("apply", write(policy(engine, "xdp")), "--netns", name)
    assert done.code == 1
    assert "no room for a pin" in done.err
    assert attached(name) == before
    assert pinned() >= files
    assert {one.description.backend for one in running.everything().values()} == {"tc"}
    assert emptcp("doctor").out.count("leftover") == 0


def _refuse_pins(patch: pytest.MonkeyPatch, times: int = 99) -> None:
    """Refuse to pin what attachments are found by: links, and programs where they have none."""
    left = iter(range(times))
    for kind in (pybpf.Link, pybpf.Program):
        patch.setattr(kind, "pin", _refusing(kind.pin, left))


def _refusing(real: Callable[..., None], left: Iterator[int]) -> Callable[..., None]:
    def pin(attachment: pybpf.Link | pybpf.Program, path: Path) -> None:
        if next(left, None) is not None:
            raise pybpf.BpfError(f"there is no room for a pin at {path}")
        real(attachment, path)

    return pin


@pytest.mark.parametrize("engine", ["fused", "tail"])
def test_pins_beside_no_program_are_found_and_removed(
    netns: Callable[[], str], emptcp: Any, write: Write, engine: str
) -> None:
    assert emptcp("apply", write(policy(engine)), "--netns", netns()).code == 0
    files = pinned()
    (here,) = (place for place in tree().locations() if place.hook == "ingress")
    strays = [tree().folder(here) / "stages_1", tree().root / "7" / "ingress" / "1" / "stages_2"]
    for path in strays:
        path.parent.mkdir(parents=True, exist_ok=True)
        with pybpf.Map.create("array", 4, 4, 1, name="stray") as stray:
            stray.pin(path)
    told = emptcp("doctor")
    assert told.code == 1
    assert all(f"no program uses what is pinned at {path}" in told.out for path in strays)
    assert emptcp("doctor", "--repair").code == 0
    assert pinned() == files
    assert not (tree().root / "7").exists()
