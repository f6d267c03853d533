# SPDX-License-Identifier: Apache-2.0
"""Carry out one decision: attach, switch, write parameters, detach; each gives what takes it back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from emptcp import pybpf
from emptcp.chain.decide import ATTACH, DETACH, SWITCH, TUNE, Decision
from emptcp.chain.description import ChainRecord, Description, PolicyRecord, StageRecord
from emptcp.chain.pins import LINK, PROGRAM, STAGES, Pins
from emptcp.chain.program import Loaded
from emptcp.chain.running import Running
from emptcp.hooks import attach
from emptcp.hooks.attach import Attached
from emptcp.hooks.devices import Device
from emptcp.hooks.namespaces import Namespace

Undo = Callable[[], None]


def carry_out(pins: Pins, decision: Decision) -> Undo:
    """Do what was decided; return a function that takes it back."""
    actions: dict[str, Callable[[Pins, Decision], Undo]] = {
        ATTACH: _attach,
        SWITCH: _switch,
        TUNE: _tune,
        DETACH: _detach,
    }
    if decision.suspended:
        actions |= {ATTACH: _lay_down, SWITCH: _lay_down, DETACH: _take_up}
    return actions[decision.action](pins, decision) if decision.action in actions else _nothing


def settle(pins: Pins, decision: Decision) -> None:
    """Let go of what only the program of before, or the way back to it, needed."""
    if decision.attached is not None:
        decision.attached.close()
    if decision.action in (ATTACH, SWITCH, DETACH):
        _forget_stages(pins, decision)


def _nothing() -> None:
    """Take nothing back."""


def _attach(pins: Pins, decision: Decision) -> Undo:
    with ExitStack() as undo:
        if decision.before is not None:
            _unpin(decision.before)
        undo.callback(_keep_stages(pins, decision))
        made = _put(decision, decision.reserved)
        undo.callback(made.detach)
        undo.callback(_remove_pins, pins, decision)
        _pin(pins, decision, made)
        return undo.pop_all().close


def _switch(pins: Pins, decision: Decision) -> Undo:
    before = decision.before
    assert before is not None
    old = _attached(decision, before)

    def repin(again: Attached) -> None:
        _unpin(before)
        _pin_as(pins, decision, again, before.program)

    def back() -> None:
        with closing(
            attach.attach(*_where(decision), before.description.backend, before.program, made)
        ) as again:
            if moved or again.link is None:
                repin(again)

    with ExitStack() as undo:
        undo.callback(_keep_stages(pins, decision))
        made = _put(decision, old, repin)
        moved = made.mechanism != old.mechanism or made.backend != old.backend
        undo.callback(back)
        if moved or made.link is None:
            _unpin(before)
            _pin(pins, decision, made)
        return undo.pop_all().close


def _tune(_pins: Pins, decision: Decision) -> Undo:
    before = decision.before
    assert before is not None
    assert decision.plan is not None
    earlier, values = before.description, before.values()
    wanted = decision.plan.parameters
    with ExitStack() as undo:
        undo.callback(before.write, values, earlier)
        before.write(wanted, _described(earlier, decision))
        return undo.pop_all().close


def _detach(pins: Pins, decision: Decision) -> Undo:
    before = decision.before
    assert before is not None
    if decision.site.device_gone or before.detached:
        _unpin(before)
        return _nothing
    old = _attached(decision, before)

    def back() -> None:
        with closing(attach.attach(*_where(decision), before.description.backend, before.program)) as again:
            _unpin(before)
            _pin_as(pins, decision, again, before.program)

    with ExitStack() as undo:
        old.detach()
        undo.callback(back)
        _unpin(before)
        return undo.pop_all().close


def _lay_down(pins: Pins, decision: Decision) -> Undo:
    """Pin a program that is to be attached later, in the place of the one of before."""
    assert decision.loaded is not None
    folder, before = pins.make(pins.folder(decision.location)), decision.before
    with ExitStack() as undo:
        undo.callback(_keep_stages(pins, decision))
        if before is not None:
            undo.callback(_replace_pin, folder, before.program)
        else:
            undo.callback(_remove_pins, pins, decision)
        _replace_pin(folder, decision.loaded.program)
        return undo.pop_all().close


def _take_up(pins: Pins, decision: Decision) -> Undo:
    """Let go of a program that is not attached."""
    before = decision.before
    assert before is not None
    _unpin(before)
    return lambda: before.program.pin(pins.make(before.folder) / PROGRAM)


def _replace_pin(folder: Path, program: pybpf.Program) -> None:
    """Put a program's pin in the place of another one's: one of the two is there at every moment."""
    fresh = folder / f"{PROGRAM}_new"
    fresh.unlink(missing_ok=True)
    program.pin(fresh)
    fresh.replace(folder / PROGRAM)


def _put(
    decision: Decision, old: Attached | None, put_back: Callable[[Attached], None] | None = None
) -> Attached:
    """Attach or switch by the first back-end that takes the program, and let the program know which it is."""
    assert decision.place is not None
    assert decision.load is not None
    made = attach.attach(*_where(decision), decision.asked, _supply(decision), old, put_back, decision.limits)
    assert decision.loaded is not None
    reason = made.reason or decision.place.reason
    decision.place = replace(decision.place, backend=made.backend, reason=reason)
    about = replace(decision.loaded.description, backend=made.backend, reason=reason)
    decision.loaded.redescribe(about)
    decision.attached = made
    return made


def _supply(decision: Decision) -> Callable[[str], pybpf.Program]:
    """Return what gives the program of a kind: the one loaded before, or another for the next back-end."""

    def program(kind: str) -> pybpf.Program:
        assert decision.load is not None
        loaded: Loaded = decision.load(decision, {"xdp": "xdp", "sched_cls": "tc"}[kind])
        return loaded.program

    return program


def reserve(decision: Decision) -> None:
    """Take the place on the device beforehand, if that makes attaching a program there quicker."""
    decision.reserved = attach.reserve(*_where(decision), decision.asked, decision.limits)


def _where(decision: Decision) -> tuple[Namespace, Device, str]:
    return decision.site.namespace, decision.site.device, decision.hook


def _attached(decision: Decision, before: Running) -> Attached:
    found = attach.restore(*_where(decision), before.link, before.description.reason)
    if found is not None:
        return found
    about = before.description
    return Attached(*_where(decision), about.backend, about.reason, "netlink", before.program.id)


def _pin(pins: Pins, decision: Decision, made: Attached) -> None:
    assert decision.loaded is not None
    _pin_as(pins, decision, made, decision.loaded.program)


def _pin_as(pins: Pins, decision: Decision, made: Attached, program: pybpf.Program) -> None:
    folder = pins.make(pins.folder(decision.location))
    if made.link is not None:
        made.link.pin(folder / LINK)
    else:
        program.pin(folder / PROGRAM)


def _unpin(before: Running) -> None:
    for name in (LINK, PROGRAM):
        (before.folder / name).unlink(missing_ok=True)


def _remove_pins(pins: Pins, decision: Decision) -> None:
    for name in (LINK, PROGRAM):
        (pins.folder(decision.location) / name).unlink(missing_ok=True)


def _keep_stages(pins: Pins, decision: Decision) -> Undo:
    """Pin the new program's array before anything can call it: the kernel empties one that has no pin."""
    stages = decision.loaded.made.stages if decision.loaded is not None else None
    if stages is None:
        return _nothing
    path = pins.make(pins.folder(decision.location)) / f"{STAGES}{stages.id}"
    stages.pin(path)
    return lambda: path.unlink(missing_ok=True)


def _forget_stages(pins: Pins, decision: Decision) -> None:
    """Remove the pins of arrays that the program of now does not use."""
    stages = decision.loaded.made.stages if decision.loaded is not None else None
    kept = f"{STAGES}{stages.id}" if stages is not None else ""
    for path in pins.folder(decision.location).glob(f"{STAGES}*"):
        if path.name != kept:
            path.unlink()


def _described(earlier: Description, decision: Decision) -> Description:
    """Return the description with the texts of the new parameters."""
    assert decision.plan is not None
    texts = {step.name: step.stage.text for step in decision.plan.steps}

    def stages(home: PolicyRecord | ChainRecord) -> tuple[StageRecord, ...]:
        return tuple(replace(one, text=texts[f"{home.home}/{one.id}"]) for one in home.stages)

    sources = [policy.source for policy in decision.policies]
    policies = zip(earlier.policies, sources, strict=True)
    return replace(
        earlier,
        policies=tuple(replace(one, source=source, stages=stages(one)) for one, source in policies),
        chains=tuple(replace(one, stages=stages(one)) for one in earlier.chains),
    )
