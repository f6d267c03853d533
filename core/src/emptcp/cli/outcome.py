# SPDX-License-Identifier: Apache-2.0
"""How a change is told: a line per device and hook, or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emptcp.chain.filling import Filled
    from emptcp.chain.session import Done, Outcome

SCHEMA = 1

_WORDS = {
    "attach": ("attached", "would attach"),
    "switch": ("switched", "would switch"),
    "tune": ("wrote parameters of", "would write parameters of"),
    "detach": ("detached", "would detach"),
    "keep": ("unchanged", "unchanged"),
}


def print_outcome(outcome: Outcome, *, as_json: bool) -> None:
    """Print what was done to stdout; warnings go to stderr."""
    if as_json:
        print(json.dumps({"schema": SCHEMA, **asdict(outcome)}))
        return
    for line in _lines(outcome):
        print(line)
    for warning in outcome.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def print_outcomes(outcomes: Sequence[Outcome], *, as_json: bool) -> None:
    """Print what was done to several tables; as JSON they are one document."""
    if as_json:
        print(json.dumps({"schema": SCHEMA, "outcomes": [asdict(outcome) for outcome in outcomes]}))
        return
    for outcome in outcomes:
        print_outcome(outcome, as_json=False)


def _lines(outcome: Outcome) -> Iterator[str]:
    for done in outcome.done:
        yield f"{_WORDS[done.action][outcome.dry_run]} {where(done)}{_backend(done)}"
    for filled in outcome.filled:
        yield _filled(filled, outcome.dry_run)
    if not outcome.done:
        yield f"table {outcome.table}: no device to run on"
    elif not outcome.changed:
        yield f"table {outcome.table} is as the file says"


def _filled(filled: Filled, dry_run: bool) -> str:
    verb = ("made", "would make") if filled.fresh else ("changed", "would change")
    return (
        f"{verb[dry_run]} {filled.kind} {filled.name}: {filled.added} entries added, {filled.removed} removed"
    )


def where(done: Done) -> str:
    """Return a location in words: ``ingress of eth0``, with the namespace if it has a name."""
    namespace = f" in {done.netns}" if done.netns else ""
    return f"{done.hook} of {done.device}{namespace}"


def _backend(done: Done) -> str:
    if done.action not in ("attach", "switch"):
        return ""
    return f" by {done.backend}: {done.reason}" if done.reason else f" by {done.backend}"
