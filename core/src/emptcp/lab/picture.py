# SPDX-License-Identifier: Apache-2.0
"""Draws a run: throughput of each path over time, with the moments at which the policy changed.

Needs matplotlib, which is the extra ``emptcp[lab]``; imported when a picture is drawn.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path as File
from typing import TYPE_CHECKING, Any

from emptcp.errors import EmptcpError
from emptcp.lab import measure
from emptcp.lab.measure import Row
from emptcp.lab.path import LabPath
from emptcp.lab.scenario import APPLIED, REMOVED, Run

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Locator

KINDS = (".svg", ".png", ".pdf")
STEP = 0.25
# Blue and orange that people who see no red or green can tell apart (Okabe and Ito, 2008), and more of them.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#666666", "#000000")
INK, FAINT, SHADE = "#222222", "#8a8a8a", "#f1efe9"
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10.5,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "emptcp",
}


def check(file: File) -> None:
    """Raise EmptcpError when no picture could be drawn into this file, before anything is run for it."""
    if file.suffix.lower() not in KINDS:
        raise EmptcpError(
            f"'{file}' is no kind of picture that can be drawn", fix=f"End its name in {', '.join(KINDS)}."
        )
    if not os.access(file.parent, os.W_OK):
        raise EmptcpError(
            f"the picture can't be written into the folder '{file.parent}'",
            fix="Name another place with --picture FILE, or run with --no-picture.",
        )
    if not available():
        raise EmptcpError(
            "a picture needs matplotlib, which is not installed",
            fix="Run with --no-picture, or install it: pip install 'emptcp[lab]'",
        )


def available() -> bool:
    """Whether matplotlib is installed; looks without importing it."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(run: Run, file: File) -> None:
    """Draw the run into a file; its name's ending tells SVG, PNG or PDF."""
    save(lambda: figure(run), file)


def save(figure: Callable[[], Figure], file: File) -> None:
    """Draw a figure in the house's style into a file."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        drawn = figure()
        drawn.savefig(file, dpi=150, metadata={"Date": None} if file.suffix == ".svg" else None)
    _give_to_caller(file)


def figure(run: Run) -> Figure:
    """One panel per path, one under the other on one time axis, so that equal rates hide nothing."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(9.6, 1.6 + 1.9 * len(run.paths)), layout="constrained")
    panels = list(drawn.subplots(len(run.paths), sharex=True, squeeze=False)[:, 0])
    rows = measure.rows(run.samples, STEP)
    for axes, path, colour in zip(panels, run.paths, COLOURS, strict=False):
        _panel(axes, path, colour, rows)
        _marks(axes, run)
    _captions(panels[0], run)
    panels[-1].set_xlim(0, run.end)
    panels[-1].xaxis.set_major_locator(_whole_seconds())
    panels[-1].set_xlabel("seconds")
    drawn.supylabel("Mbit/s delivered", fontsize=10.5)
    drawn.suptitle(_title(run), fontsize=13.5, weight="bold")
    entries = _legend(panels)
    drawn.legend(entries.values(), entries, loc="outside lower center", ncols=4, frameon=False)
    return drawn


def _panel(axes: Axes, path: LabPath, colour: str, rows: Sequence[Row]) -> None:
    middles = [(row.begin + row.end) / 2 for row in rows]
    rates = [row.mbit[path.name] for row in rows]
    axes.plot(middles, rates, color=colour, linewidth=2.2, label=_label(path), zorder=3)
    axes.fill_between(middles, rates, color=colour, alpha=0.18, linewidth=0, zorder=2)
    axes.axhline(path.rate / 1e6, color=FAINT, linewidth=1, linestyle=":", label="the path's rate", zorder=1)
    axes.set_ylim(0, max(path.rate / 1e6 * 1.15, max(rates) * 1.05))
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _marks(axes: Axes, run: Run) -> None:
    applied, removed = run.moment(APPLIED), run.moment(REMOVED)
    if applied and removed:
        axes.axvspan(applied.begun, removed.begun, color=SHADE, label="the policy is in force", zorder=0)
    for moment in run.moments:
        axes.axvline(moment.begun, color=INK, linewidth=1.2, linestyle="--", zorder=4)


def _captions(axes: Axes, run: Run) -> None:
    for moment in run.moments:
        axes.annotate(
            _caption(run, moment.name),
            (moment.begun, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=9.5,
        )


def _legend(panels: Sequence[Axes]) -> dict[str, Artist]:
    """What each label stands for: the paths first, then what all panels share."""
    found = [dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True)) for axes in panels]
    first = {label: handle for entries in found for label, handle in list(entries.items())[:1]}
    return first | {label: handle for entries in found for label, handle in entries.items()}


def _whole_seconds() -> Locator:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=12, integer=True)


def _caption(run: Run, name: str) -> str:
    if not run.shipped:
        return f"policy {name}"
    meaning = {APPLIED: f"{run.watched} is backup", REMOVED: f"{run.watched} is given back"}
    return f"policy {name}:\n{meaning[name]}"


def _label(path: LabPath) -> str:
    return f"{path.name} ({path.rate / 1e6:g} Mbit/s, RTT {path.rtt * 1e3:g} ms)"


def _title(run: Run) -> str:
    policy = "no policy" if run.policy is None else f"policy {run.policy.name}"
    return f"One MPTCP connection over {len(run.paths)} paths, {policy}"


def _give_to_caller(file: File) -> None:
    """Under sudo, let the picture belong to who typed the command."""
    owner, group = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if owner.isdigit() and group.isdigit() and os.geteuid() == 0:
        os.chown(file, int(owner), int(group))
