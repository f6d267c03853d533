# SPDX-License-Identifier: Apache-2.0
"""The picture of a run: drawn as SVG and PNG, with everything a reader needs in it."""

from __future__ import annotations

import importlib.util
from pathlib import Path as File
from typing import Any

import pytest

from emptcp.errors import EmptcpError
from emptcp.lab import picture

from .conftest import made_up_run

drawn = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None,
    reason="matplotlib, the extra emptcp[lab], is not installed",
)


@drawn
def test_the_picture_names_paths_policy_and_moments(tmp_path: File) -> None:
    import matplotlib as mpl

    file = tmp_path / "run.svg"
    with mpl.rc_context({"svg.fonttype": "none"}):
        picture.draw(made_up_run(), file)
    text = file.read_text()
    for words in (
        "One MPTCP connection over 2 paths, policy two-path.toml",
        "path1 (100 Mbit/s, RTT 20 ms)",
        "path2 (100 Mbit/s, RTT 50 ms)",
        "policy applied:",
        "path2 is backup",
        "policy removed:",
        "path2 is given back",
        "Mbit/s delivered",
        "seconds",
    ):
        assert words in text, words


@drawn
def test_the_marks_stand_where_the_policy_changed() -> None:
    run = made_up_run()
    for axes in picture.figure(run).axes:
        lines: list[Any] = [line.get_xydata() for line in axes.lines]
        assert {line[0][0] for line in lines if [y for _, y in line] == [0, 1]} == {6.0, 13.0}
        assert axes.get_xlim() == (0, 20)


@drawn
def test_a_png_and_a_run_without_policy_can_be_drawn_too(tmp_path: File) -> None:
    file = tmp_path / "run.png"
    picture.draw(made_up_run(policy=None, during=(95, 95)), file)
    assert file.read_bytes().startswith(b"\x89PNG")


@drawn
def test_the_same_run_gives_the_same_picture(tmp_path: File) -> None:
    one, other = tmp_path / "one.svg", tmp_path / "other.svg"
    for file in (one, other):
        picture.draw(made_up_run(), file)
    assert one.read_bytes() == other.read_bytes()


def test_a_picture_of_an_unknown_kind_is_refused_before_the_run(tmp_path: File) -> None:
    with pytest.raises(EmptcpError, match="no kind of picture"):
        picture.check(tmp_path / "run.gif")


def test_a_folder_that_is_not_there_is_refused_before_the_run(tmp_path: File) -> None:
    with pytest.raises(EmptcpError, match="can't be written into the folder"):
        picture.check(tmp_path / "nowhere" / "run.svg")


def test_without_matplotlib_the_extra_is_named(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "available", lambda: False)
    with pytest.raises(EmptcpError, match="needs matplotlib") as refusal:
        picture.check(tmp_path / "run.svg")
    assert "emptcp[lab]" in refusal.value.fix
