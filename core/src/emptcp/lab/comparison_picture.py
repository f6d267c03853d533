# SPDX-License-Identifier: Apache-2.0
"""Draws a use case: the ratio of every case with its interval, right of 1 is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path as File
from typing import TYPE_CHECKING, Any

from emptcp.lab.picture import COLOURS, FAINT, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(answer: Mapping[str, Any], file: File) -> None:
    """Draw the JSON object of a use case into a file; its ending says how."""
    save(lambda: figure(answer), file)


def figure(answer: Mapping[str, Any]) -> Figure:
    """One line per point of the grid, one colour for each setting that emptcp is compared with."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(case["name"] for case in answer["cases"]))
    settings = list(dict.fromkeys(case["against"] for case in answer["cases"]))
    drawn = Figure(figsize=(9.6, 1.8 + 0.5 * len(names)), layout="constrained")
    axes = drawn.subplots()
    for index, setting in enumerate(settings):
        cases = [case for case in answer["cases"] if case["against"] == setting]
        ratios = [case["ratio"] for case in cases]
        medians = [ratio["median"] for ratio in ratios]
        axes.errorbar(
            medians,
            [names.index(case["name"]) + 0.16 * (index - (len(settings) - 1) / 2) for case in cases],
            xerr=_errors(ratios),
            fmt="o",
            color=COLOURS[index],
            capsize=3,
            label=f"against {setting}",
        )
    axes.axvline(1, color=FAINT, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("emptcp, times the other; more is better")
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    drawn.suptitle(f"{answer['use_case']}: {answer['rounds']} rounds", fontsize=13.5, weight="bold")
    drawn.legend(loc="outside lower center", ncols=3, frameon=False)
    return drawn


def _errors(ratios: Sequence[Mapping[str, float]]) -> list[list[float]]:
    below = [ratio["median"] - ratio["low"] for ratio in ratios]
    return [below, [ratio["high"] - ratio["median"] for ratio in ratios]]
