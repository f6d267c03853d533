# SPDX-License-Identifier: Apache-2.0
"""Load every stage wherever its manifest says it works, and measure it there. Needs root."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

from emptcp.chain.dryrun import Runner
from emptcp.errors import EmptcpError
from emptcp.plugins import discovery, state
from emptcp.plugins.catalog import Catalog, StageType
from emptcp.plugins.discovery import Plugin
from emptcp.pybpf.errors import BpfError
from emptcp.pybpf.verifier import VerifierError

from ..fuzz import stages
from ..packets import Dss, MpJoinSyn, Nop, WindowScale, build
from ..testing.everywhere import DROP_ALL
from ..testing.times import nanoseconds
from ..testing.trial import Place, bound, places
from ..testing.trial import runner as loaded_runner
from .finding import Finding, Measured
from .subject import Subject

PACKETS = (
    build(flags="S", options=[MpJoinSyn(1, 2, 3), WindowScale(7), Nop()]),
    build(options=[Dss(data_ack=1, dsn=2, data_length=100)], payload=bytes(100)),
)
"""A subflow's SYN, and the packet that is measured."""


def check(subject: Subject, everything: list[Subject]) -> tuple[list[Finding], list[Measured]]:
    """Load the stages of a plugin; ``everything`` are the plugins of the same project."""
    catalog = Catalog(_plugins(everything))
    found: list[Finding] = []
    measured: list[Measured] = []
    for stage in catalog:
        if (stage.plugin, stage.distribution) == (subject.name, subject.distribution):
            for one in _stage(subject, catalog, stage):
                (measured if isinstance(one, Measured) else found).append(one)  # type: ignore[arg-type]
    return _without_repetitions(found), measured


def _plugins(subjects: list[Subject]) -> list[Plugin]:
    """Return the subjects as enabled plugins, beside those that may be used and claim none of their names."""
    mine = [
        Plugin(
            one.name, one.distribution, one.version, one.package, one.folder, one.manifest, discovery.ENABLED
        )
        for one in subjects
    ]
    claimed = {name for one in mine for name in (*one.provides, f"plugin {one.name}")}
    others = (one for one in state.judged() if one.usable)
    return [*mine, *(one for one in others if claimed.isdisjoint((*one.provides, f"plugin {one.name}")))]


def _stage(subject: Subject, catalog: Catalog, stage: StageType) -> Iterator[Finding | Measured]:
    text = stages.least(stage, Random(0))
    do, when = (DROP_ALL, text) if stage.kind == "selector" else ((text,), "")
    for hook in stage.declaration.hooks:
        try:
            policy = bound(do, when, hook, catalog=catalog)
        except EmptcpError as error:
            yield _finding(subject, stage, hook, error)
            continue
        found = list(places(policy, hook))
        if not found:
            own = subject.in_source(rf"EMPTCP_\w+\({stage.declaration.fragment}\b")
            sentence = f"{stage.kind} '{stage.name}' works by no back-end of its hook {hook}"
            yield Finding("load", own, sentence, "Compare 'hooks' and 'backends' of the manifest.")
        for place in found:
            try:
                with loaded_runner(policy, place) as runner:
                    yield _measured(stage, place, runner)
            except (EmptcpError, BpfError) as error:
                yield _finding(subject, stage, str(place), error)


def _finding(subject: Subject, stage: StageType, place: str, error: EmptcpError | BpfError) -> Finding:
    own = subject.in_source(rf"EMPTCP_\w+\({stage.declaration.fragment}\b")
    what = f"{stage.kind} '{stage.name}' ({place})"
    refusal = error if isinstance(error, VerifierError) else error.__cause__
    if not isinstance(refusal, VerifierError):
        return Finding("load", own, f"{what}: {error.sentence}", error.fix or "See the kernel's message.")
    told = refusal.explanation
    files = [one for one in subject.folder.rglob("*") if told.file and one.name == Path(told.file).name]
    where = subject.shown(files[0], told.line) if files else told.place or own
    line = f", in: {told.source_line}" if told.source_line else ""
    return Finding("verifier", where, f"{what}: {told.reason}{line}", told.hint or refusal.fix)


def _measured(stage: StageType, place: Place, runner: Runner) -> Measured:
    runner.run(PACKETS[0])
    # Of tail calls only the first program is at hand, which has none of the stage's code.
    steps = runner.loaded.program.info.verified_instructions if place.engine == "fused" else None
    return Measured(stage.name, str(place), steps=steps, ns=nanoseconds(runner, PACKETS[1]))


def _without_repetitions(found: list[Finding]) -> list[Finding]:
    """Return the first finding of each rule and line: what is wrong at one place often is at all."""
    return list({(one.rule, one.where): one for one in reversed(found)}.values())[::-1]
