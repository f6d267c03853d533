# SPDX-License-Identifier: Apache-2.0
"""`emptcp-sdk new` and `update`: which answers are taken, and what a later template does to a package."""

from __future__ import annotations

import ast
import json
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from emptcp.plugins import agreement, layout, manifest
from emptcp_sdk.build import build
from emptcp_sdk.cli import main
from emptcp_sdk.errors import TemplateError
from emptcp_sdk.project import template
from emptcp_sdk.project.new import new
from emptcp_sdk.project.update import update

VARIANTS = {"scheduler": "scheduler", "path-manager": "path_manager"}
"""Of a controller, and the module of each."""
KINDS = [*((kind, "") for kind in template.KINDS), ("controller", "path-manager")]


def made(folder: Path, kind: str = "actor", **answers: str) -> Path:
    return new({"name": "mine", "kind": kind, **answers}, folder / "mine", defaults=True)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return made(tmp_path)


# new


@pytest.mark.parametrize("hooks", ["both", "ingress", "egress"])
@pytest.mark.parametrize("kind", ["selector", "actor"])
def test_manifest_object_and_project_agree(tmp_path: Path, kind: str, hooks: str) -> None:
    package = made(tmp_path, kind, hooks=hooks, summary="it's a try", author="Ada & Co")
    (built,) = build(package)
    found = manifest.load(built.object.with_name("emptcp.toml"))
    agreement.check(found, layout.read(built.object))
    (stage,) = found.stages
    assert (stage.kind, stage.name) == (kind, "mine")
    assert stage.hooks == (("ingress", "egress") if hooks == "both" else (hooks,))
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    assert project["authors"] == [{"name": "Ada & Co"}]
    assert project["entry-points"]["emptcp.plugins"] == {"mine": built.object.parent.name}


@pytest.mark.parametrize(("variant", "module"), VARIANTS.items())
def test_a_controllers_manifest_names_a_class_of_the_package(
    tmp_path: Path, variant: str, module: str
) -> None:
    package = made(tmp_path, "controller", distribution="mine-own", variant=variant)
    found = manifest.load(package / "src" / "mine_own" / "emptcp.toml")
    (one,) = found.controllers
    assert (one.name, one.entry) == ("mine", f"mine_own.{module}:Mine")
    expected = (("block",), True) if variant == "path-manager" else (("backup",), False)
    assert (one.sets, one.blocked) == expected
    source = (package / "src" / "mine_own" / f"{module}.py").read_text()
    classes = [node.name for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    assert classes == ["Mine"]
    assert found.object == ""
    assert not any(package.rglob("*.bpf.c"))


@pytest.mark.parametrize(("kind", "variant"), KINDS)
def test_every_file_is_whole(tmp_path: Path, kind: str, variant: str) -> None:
    package = made(tmp_path, kind, **({"variant": variant} if variant else {}))
    tests = f"test_{VARIANTS[variant or 'scheduler']}" if kind == "controller" else "test_packets"
    files = [path for path in package.rglob("*") if path.is_file()]
    names = {path.relative_to(package).as_posix() for path in files}
    assert {
        "README.md",
        "tox.ini",
        ".gitignore",
        ".github/workflows/test.yml",
        f"tests/{tests}.py",
    } <= names
    assert {"LICENSES/BSD-2-Clause.txt", "LICENSES/GPL-2.0-only.txt"} <= names
    for path in files:
        text = path.read_text()
        assert text.endswith("\n"), path
        assert "{%" not in text, path
        if path.suffix == ".py":
            ast.parse(text)


def test_the_folder_is_named_as_the_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "cap_window", "--kind", "actor", "--defaults"]) == 0
    assert (tmp_path / "emptcp-actor-cap-window" / "pyproject.toml").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Mine"], "a name is small letters"),
        (["goto"], "'goto' is a word of the policy language"),
        (["struct"], "'struct' is a word of C"),
        (["mine", "--answer", "distribution=a--b"], "a package's name is small letters"),
        (["mine", "--answer", 'summary=say "so"'], "a summary is one line"),
        (["mine", "--answer", "author=a\\b"], "a name is one line"),
        (["mine", "--answer", "hooks=socket"], "'hooks': 'socket' is not in ['both', 'ingress', 'egress']"),
    ],
)
def test_an_answer_that_would_not_work_is_refused(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "made"
    assert main(["new", *arguments, "--kind", "actor", "--defaults", "--into", str(target)]) == 1
    assert said in capsys.readouterr().err
    assert not target.exists()


def test_an_unknown_question_is_a_wrong_usage() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["new", "mine", "--answer", "colour=blue"])
    assert ended.value.code == 2


def test_without_a_terminal_the_way_out_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", (tmp_path / "empty").open("w+"))
    assert main(["new", "mine", "--kind", "actor", "--into", str(tmp_path / "made")]) == 1
    assert "no terminal to ask questions at\nTake the defaults: --defaults" in capsys.readouterr().err


def test_nothing_is_written_over(package: Path) -> None:
    with pytest.raises(TemplateError, match="is there already"):
        made(package.parent)


def test_a_missing_copier_is_named_with_the_way_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "copier", None)
    assert main(["new", "mine", "--defaults", "--into", str(tmp_path / "made")]) == 1
    assert "Run: pip install 'emptcp-sdk[new]'" in capsys.readouterr().err


# update

Edit = Callable[[Path], object]


def changed(path: str, old: str, new: str) -> Edit:
    def edit(folder: Path) -> None:
        text = (folder / path).read_text()
        assert old in text
        (folder / path).write_text(text.replace(old, new))

    return edit


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """A copy of the template, to be changed as a later SDK might have it."""
    return Path(shutil.copytree(template.FOLDER, tmp_path / "template"))


def outcomes(package: Path, later: Path) -> dict[str, str]:
    return {one.name: one.outcome for one in update(package, folder=later)}


def test_without_a_later_template_nothing_happens(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in package.rglob("*") if path.is_file()}
    assert main(["update", str(package)]) == 0
    assert capsys.readouterr().out == "nothing changed in the template\n"
    assert {path: path.read_bytes() for path in package.rglob("*") if path.is_file()} == before


def test_both_sides_changes_are_kept(package: Path, later: Path) -> None:
    changed("tox.ini", "pytest {posargs}", "pytest -v {posargs}")(package)
    changed("project/tox.ini", "tox>=4.25", "tox>=4.30")(later)
    changed("project/README.md.jinja", "## Working on it", "## To work on it")(later)
    assert outcomes(package, later) == {"README.md": "changed", "tox.ini": "changed"}
    assert "tox>=4.30" in (package / "tox.ini").read_text()
    assert "pytest -v" in (package / "tox.ini").read_text()
    assert outcomes(package, later) == {}, "the package now stands on the later template"


def test_the_same_change_of_both_is_no_conflict(package: Path, later: Path) -> None:
    changed("tox.ini", "tox>=4.25", "tox>=4.30")(package)
    changed("project/tox.ini", "tox>=4.25", "tox>=4.30")(later)
    assert outcomes(package, later) == {}


def test_a_conflict_is_marked_and_told(
    package: Path, later: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changed("tox.ini", "tox>=4.25", "tox>=4.26")(package)
    changed("project/tox.ini", "tox>=4.25", "tox>=4.30")(later)
    monkeypatch.setattr(template, "FOLDER", later)
    assert main(["update", str(package)]) == 1
    assert capsys.readouterr().out == "conflict tox.ini\n"
    text = (package / "tox.ini").read_text()
    assert "<<<<<<< yours\nrequires = tox>=4.26\n" in text
    assert "requires = tox>=4.30\n>>>>>>> template now\n" in text


def test_files_come_and_go(package: Path, later: Path) -> None:
    (package / ".gitignore").unlink()
    changed("tests/test_hooks.py", "assert", "assert not None and")(package)
    changed("project/.gitignore.jinja", "dist/", "dist/\nbuild/")(later)
    (later / "project" / "tests" / "test_hooks.py.jinja").unlink()
    (later / "project" / "tests" / "test_live.py.jinja").unlink()
    (later / "project" / "NEWS.md.jinja").write_text("# News of {{ name }}\n")
    assert outcomes(package, later) == {
        ".gitignore": "kept",
        "NEWS.md": "added",
        "tests/test_hooks.py": "kept",
        "tests/test_live.py": "removed",
    }
    assert (package / "NEWS.md").read_text() == "# News of mine\n"
    assert not (package / ".gitignore").exists()
    assert (package / "tests" / "test_hooks.py").exists()
    assert not (package / "tests" / "test_live.py").exists()


def test_a_dry_run_changes_nothing(package: Path, later: Path) -> None:
    changed("project/tox.ini", "tox>=4.25", "tox>=4.30")(later)
    assert [one.name for one in update(package, dry_run=True, folder=later)] == ["tox.ini"]
    assert "tox>=4.25" in (package / "tox.ini").read_text()
    assert outcomes(package, later) == {"tox.ini": "changed"}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (Path.unlink, "was not made by emptcp-sdk"),
        (lambda file: file.write_text("{"), "can't be read"),
        (lambda file: file.write_text(json.dumps({"schema": 9})), "is of a later emptcp-sdk"),
        (lambda file: file.write_text(json.dumps({"schema": 1})), "can't be read"),
    ],
    ids=["missing", "no JSON", "later", "empty"],
)
def test_a_package_without_origin_is_refused(package: Path, damage: Edit, said: str) -> None:
    damage(package / ".emptcp-sdk.json")
    with pytest.raises(TemplateError, match=said):
        update(package)


def test_a_missing_git_is_named(package: Path, later: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed("tox.ini", "tox>=4.25", "tox>=4.26")(package)
    changed("project/tox.ini", "tox>=4.25", "tox>=4.30")(later)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(TemplateError, match="merging needs git"):
        update(package, folder=later)
