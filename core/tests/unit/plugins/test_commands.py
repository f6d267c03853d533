# SPDX-License-Identifier: Apache-2.0
"""`emptcp plugins`, as an operator types it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from emptcp.cli.main import main
from emptcp.plugins import state


@pytest.fixture(autouse=True)
def _nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep what this machine runs out of the listing."""
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / "run"))


def emptcp(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run a command; return its exit code, output and errors."""
    code = main(["plugins", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_list_is_json_with_a_schema_number(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    site.add()
    code, out, _ = emptcp(capsys, "list", "--json")
    answer = json.loads(out)
    row = next(row for row in answer["plugins"] if row["distribution"] == "someones-cap")
    assert (code, answer["schema"]) == (0, 1)
    assert row == {
        "name": "cap",
        "distribution": "someones-cap",
        "version": "1.0",
        "provides": ["selector is_capped", "actor cap", "key cap_key", "command caps"],
        "state": "found",
        "reason": "it was never enabled. Run: emptcp plugins enable cap",
        "strays": [],
    }


def test_the_list_says_what_is_wrong_and_what_to_do(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    site.add(manifest="junk")
    code, out, _ = emptcp(capsys, "list")
    assert code == 0
    assert ["cap", "invalid", "1.0", "someones-cap", "-"] in [line.split() for line in out.splitlines()]
    assert "emptcp.toml:1:5: the TOML is broken" in out


def test_enable_and_disable_say_what_they_did(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    site.add()
    code, out, _ = emptcp(capsys, "enable", "cap")
    assert (code, out) == (
        0,
        "enabled someones-cap:cap 1.0: selector is_capped, actor cap, key cap_key, command caps\n",
    )
    code, out, _ = emptcp(capsys, "disable", "cap")
    assert (code, out) == (0, "disabled someones-cap:cap; no policy can be applied with it from now on\n")


def test_files_outside_of_the_package_are_flagged(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the plugin's state: they act without it."""
    site.add()
    record = Path(site.folder, "someones_cap-1.0.dist-info", "RECORD")
    record.write_text(record.read_text() + "six.py,,\nhere.pth,,\n../../../bin/cap,,\n")
    told = "it brings files outside of its package: here.pth, ../../../bin/cap, six.py"
    _, out, _ = emptcp(capsys, "list")
    assert f"\ncap: it was never enabled; {told} (.pth files run in every Python that starts there" in out
    assert told in emptcp(capsys, "info", "cap")[1]
    assert emptcp(capsys, "enable", "cap")[2].startswith(f"warning: {told}")
    _, out, _ = emptcp(capsys, "list", "--json")
    (row,) = [row for row in json.loads(out)["plugins"] if row["name"] == "cap"]
    assert (row["state"], row["strays"]) == ("enabled", ["here.pth", "../../../bin/cap", "six.py"])
    assert f"\ncap: {told}" in emptcp(capsys, "list")[1]


def test_enable_says_what_an_editable_install_means(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    root = site.add(editable=True)
    code, out, _ = emptcp(capsys, "enable", "cap")
    assert code == 0
    said = f"It is an editable install: whatever stands in {root} from now on may run as root."
    assert out.splitlines()[1] == said


def test_a_refusal_is_a_sentence_and_exit_code_1(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    site.add()
    code, out, err = emptcp(capsys, "enable", "cup")
    assert (code, out) == (1, "")
    assert err == "emptcp: no plugin 'cup' is installed\ndid you mean 'cap'?\n"


def test_info_tells_how_each_stage_is_written(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    site.add()
    code, out, _ = emptcp(capsys, "info", "someones-cap:cap")
    assert code == 0
    assert "cap 1.0 from someones-cap: found" in out
    assert "actor cap(rate=10mbit or 5kbps, [wait=20ms or 5s], [port=443]" in out
    assert "[syn, ..])" in out
    assert "  rate (rate, required, 1mbit to 1gbit): the most it may send" in out
    assert "  wait (time, default 20ms): " in out
    assert "command caps: print the caps" in out


def test_info_tells_how_a_controller_is_written(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = emptcp(capsys, "info", "ecf")
    assert code == 0
    assert '\ncontroller use = "ecf", with = { [beta=5%] }\n' in out
    assert (
        "  runs at the sender of the data\n  sets backup of subflows\n  beta (percent, default 25%): " in out
    )
    (one,) = json.loads(emptcp(capsys, "info", "ecf", "--json")[1])["controllers"]
    assert (one["name"], one["end"], one["sets"]) == ("ecf", "sender", ["backup"])
    assert one["parameters"][0]["default"] == "25%"


def test_info_tells_whose_it_is_and_what_enabling_would_record(
    site: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    root = site.add()
    more = "License-Expression: MIT\nAuthor: Some\x1b[1m One\n"
    for path in Path(site.folder).glob("someones_cap-*.dist-info/METADATA"):
        path.write_text(path.read_text() + more)
    _, out, _ = emptcp(capsys, "info", "cap")
    assert "\nby Some\\x1b[1m One, under MIT\n" in out
    told = re.search(r"^(\d+) bytes, sha256 ([0-9a-f]{64})$", out, re.MULTILINE)
    assert told
    state.enable("cap")
    assert state.read()["someones-cap:cap"].digest == told[2]
    assert int(told[1]) > Path(root, "cap.bpf.o").stat().st_size
    assert "  also runs 'note_ack' at egress\n" in out
    answer = json.loads(emptcp(capsys, "info", "cap", "--json")[1])
    assert (answer["licence"], answer["sha256"], answer["bytes"]) == ("MIT", told[2], int(told[1]))


def test_info_is_json_too(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    site.add()
    _, out, _ = emptcp(capsys, "info", "cap", "--json")
    answer = json.loads(out)
    actor = answer["stages"][1]
    assert (answer["schema"], answer["state"], actor["name"], actor["hooks"]) == (
        1,
        "found",
        "cap",
        ["ingress"],
    )
    assert actor["parameters"][0] == {
        "name": "rate",
        "type": "rate",
        "required": True,
        "default": None,
        "min": "1mbit",
        "max": "1gbit",
        "help": "the most it may send",
    }


@pytest.mark.parametrize("words", [["plugins", "list"], ["plugins", "info", "cap"], ["plugins", "--help"]])
def test_no_plugin_is_imported_to_answer(site: Any, words: list[str]) -> None:
    root = site.add()
    ran = subprocess.run(
        [sys.executable, "-m", "emptcp.cli.main", *words],
        env={**os.environ, "PYTHONPATH": str(site.folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert not Path(root, "imported").exists()
