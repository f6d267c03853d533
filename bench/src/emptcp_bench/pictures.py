# SPDX-License-Identifier: Apache-2.0
"""Draws benchmarks from their JSON: the ratios of chains, and what each stage costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path as File
from typing import TYPE_CHECKING, Any

from emptcp.errors import EmptcpError
from emptcp.lab.picture import COLOURS, FAINT, available, save
from emptcp_bench.page import Answers, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(answers: Answers, folder: File) -> None:
    """Draw what has a picture into a folder. Raises EmptcpError without matplotlib."""
    if not available():
        raise EmptcpError("pictures need matplotlib, which is not installed", fix="pip install 'emptcp[lab]'")
    if "chain" in answers:
        save(lambda: chain(answers["chain"]), folder / picture("chain"))
    if "ops" in answers:
        save(lambda: ops(answers["ops"]), folder / picture("ops"))


def chain(answer: Mapping[str, Any]) -> Figure:
    """One line per chain and what it is compared with, one colour per hook; on a scale of powers."""
    named = [(f"{one['case']} / {one['against']}", one) for one in answer["comparisons"] if one["ratio"]]
    names = list(dict.fromkeys(name for name, _ in named))
    drawn, axes = _figure(len(names))
    hooks = list(dict.fromkeys(one["backend"] for _, one in named))
    for n, hook in enumerate(hooks):
        mine = [(name, one["ratio"]) for name, one in named if one["backend"] == hook]
        medians = [ratio["median"] for _, ratio in mine]
        places = [names.index(name) + 0.24 * (n - (len(hooks) - 1) / 2) for name, _ in mine]
        below = [ratio["median"] - ratio["min"] for _, ratio in mine]
        above = [ratio["max"] - ratio["median"] for _, ratio in mine]
        axes.errorbar(medians, places, xerr=[below, above], fmt="o", color=COLOURS[n], capsize=3, label=hook)
    axes.set_xscale("log")
    axes.axvline(1, color=FAINT, linewidth=1, linestyle=":")
    _finish(drawn, axes, names, "time per packet, times that of the other; less is better")
    return drawn


def ops(answer: Mapping[str, Any]) -> Figure:
    """One group of bars per stage, on packets of IPv4 that it acts on: nanoseconds by hook and engine."""
    rows = [one for one in answer["rows"] if one["packet"] == "acts" and one["family"] == "IPv4"]
    places = [head for head in rows[0] if head.endswith(", ns")]
    drawn, axes = _figure(len(rows))
    for n, place in enumerate(places):
        height = 0.8 / len(places)
        at = [row + height * (n - (len(places) - 1) / 2) for row in range(len(rows))]
        medians = [one[place]["median"] if one[place] else 0 for one in rows]
        axes.barh(at, medians, height=height, color=COLOURS[n], label=place.removesuffix(", ns"))
    _finish(drawn, axes, [one["stage"] for one in rows], "nanoseconds per packet, of the stage alone")
    return drawn


def _figure(lines: int) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(10.5, 1.8 + 0.42 * lines), layout="constrained")
    return drawn, drawn.subplots()


def _finish(drawn: Figure, axes: Axes, names: Sequence[str], what: str) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(what)
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    drawn.legend(loc="outside lower center", ncols=4, frameon=False)
