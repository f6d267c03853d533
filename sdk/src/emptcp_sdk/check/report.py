# SPDX-License-Identifier: Apache-2.0
"""A report as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from .finding import Measured
from .run import Report

SCHEMA = 1


def as_json(report: Report) -> dict[str, Any]:
    """Return the report as JSON has it."""
    return {
        "schema": SCHEMA,
        "path": str(report.path),
        "findings": [{**asdict(one), "level": one.level, "why": one.why} for one in report.findings],
        "measured": [
            {name: value for name, value in asdict(one).items() if value is not None}
            for one in report.measured
        ],
        "compilers": sorted(set(report.compilers)),
        "loaded": report.loaded,
    }


def lines(report: Report) -> Iterator[str]:
    """Yield the report for a terminal: findings, then measurements, then what it comes to."""
    for one in report.findings:
        yield f"{one.where}: {one.level}: {one.sentence} [{one.rule}]"
        yield f"    why: {one.why}"
        yield f"    fix: {one.fix}"
    yield from map(_measured, report.measured)
    if not report.loaded and not report.failed:
        yield "not loaded: that needs root, and no --static"
    errors = sum(one.level == "error" for one in report.findings)
    yield f"{report.path}: {errors} errors, {len(report.findings) - errors} warnings"


def _measured(one: Measured) -> str:
    if one.instructions is not None:
        return f"{one.stage} ({one.place}): {one.instructions} instructions, {one.stack} bytes of stack"
    steps = f"{one.steps} steps of the verifier, " if one.steps is not None else ""
    return f"{one.stage} ({one.place}): {steps}{one.ns:.0f} ns a packet"
