# SPDX-License-Identifier: Apache-2.0
"""`emptcp-sdk check`: every finding that needs no kernel, provoked in a package from the template."""

from __future__ import annotations

import json
import re
import subprocess
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from emptcp_sdk.build import build
from emptcp_sdk.check.finding import RULES, Finding
from emptcp_sdk.check.licence_rules import compatible
from emptcp_sdk.check.run import check
from emptcp_sdk.cli import main
from emptcp_sdk.compiler import find_compiler
from emptcp_sdk.project.new import new

PACKAGE = "src/emptcp_actor_mine/"
C, MANIFEST, HOOKS = PACKAGE + "mine.bpf.c", PACKAGE + "emptcp.toml", PACKAGE + "hooks.py"
OBJECT, RECORD, PROJECT = PACKAGE + "mine.bpf.o", PACKAGE + "mine.bpf.json", "pyproject.toml"
INCLUDE = "#include <emptcp/actor.h>\n"
MODULE = 'module = "emptcp_actor_mine.hooks"'

Edit = Callable[[Path], object]


def replace(file: str, old: str, new: str) -> Edit:
    def edit(root: Path) -> None:
        text = (root / file).read_text()
        assert old in text, (file, old)
        (root / file).write_text(text.replace(old, new))

    return edit


def append(file: str, text: str) -> Edit:
    return lambda root: (root / file).write_text((root / file).read_text() + text)


def body(code: str) -> Edit:
    """Put code before the actor's `return`."""
    return replace(C, "\treturn EMPTCP_NEXT;", f"\t{code}\n\treturn EMPTCP_NEXT;")


def other_object(make: Callable[[Path], object]) -> Edit:
    """Let the manifest name an object that no source is there for."""

    def edit(root: Path) -> None:
        replace(MANIFEST, "mine.bpf.o", "other.bpf.o")(root)
        make(root)

    return edit


def without_types(root: Path) -> None:
    source = root / "plain.c"
    source.write_text('__attribute__((section("tc"), used)) int f(void *c) { return !c; }\n')
    output = root / PACKAGE / "other.bpf.o"
    subprocess.run([find_compiler().path, "-target", "bpf", "-O2", "-c", source, "-o", output], check=True)


def without_lines(root: Path) -> None:
    build(root)
    data = (root / OBJECT).read_bytes()
    (root / PACKAGE / "other.bpf.o").write_bytes(data.replace(b".BTF.ext\0", b".BTF.old\0"))


KEY = """
#include <emptcp/key.h>
struct pair { __be16 port[3]; };
EMPTCP_KEY(pair, pkt, struct pair, key)
{
	key->port[0] = 1;
	return true;
}
"""

CASES: dict[str, tuple[Edit, list[tuple[str, str, str]]]] = {
    "C that does not compile": (
        body("nonsense();"),
        [
            ("compile", rf"{C}:14", "implicit declaration of function 'nonsense'"),
            ("object", OBJECT, "cannot read"),
        ],
    ),
    "no entry point": (
        replace(PROJECT, '[project.entry-points."emptcp.plugins"]', "[project.entry-points.other]"),
        [("entry-point", PROJECT, "the project provides no plugin")],
    ),
    "a dotted entry point": (
        replace(PROJECT, 'mine = "emptcp_actor_mine"', 'mine = "emptcp_actor_mine.sub"'),
        [("entry-point", PROJECT, "is no top-level package")],
    ),
    "another name in the manifest": (
        replace(MANIFEST, 'name = "mine"\nsummary', 'name = "yours"\nsummary'),
        [("entry-point", f"{MANIFEST}:4", "the manifest is of 'yours', the entry point of 'mine'")],
    ),
    "an unknown key": (
        replace(MANIFEST, "help =", "hlep ="),
        [("manifest", rf"{MANIFEST}:11:1", "'hlep'")],
    ),
    "a missing object": (
        replace(MANIFEST, "mine.bpf.o", "other.bpf.o"),
        [("object", PACKAGE + "other.bpf.o", "cannot read the object file")],
    ),
    "an object that is none": (
        other_object(lambda root: (root / PACKAGE / "other.bpf.o").write_bytes(b"junk")),
        [("object", PACKAGE + "other.bpf.o", "is no BPF object")],
    ),
    "an object without BTF": (
        other_object(without_types),
        [("btf", PACKAGE + "other.bpf.o", "has no BTF")],
    ),
    "an object without C lines": (
        other_object(without_lines),
        [
            ("btf", PACKAGE + "other.bpf.o", "does not tell its C lines"),
            ("record", "other.bpf.json", "no record"),
        ],
    ),
    "a source without licence": (
        replace(C, "/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */\n", "/* ours */\n"),
        [("licence", f"{C}:1", "states no licence")],
    ),
    "a source under another licence": (
        replace(C, "GPL-2.0-only OR BSD-2-Clause", "Apache-2.0"),
        [("licence", f"{C}:1", "'Apache-2.0' is not compatible with GPL")],
    ),
    "an object under another licence": (
        append(C, '\nchar licence[] SEC("license") = "Proprietary";\n'),
        [("licence", f"{C}:17", "states licence 'Proprietary'")],
    ),
    "another chain ABI": (
        replace(C, INCLUDE, INCLUDE + "#undef EMPTCP_CHAIN_ABI\n#define EMPTCP_CHAIN_ABI 9\n"),
        [("abi", f"{MANIFEST}:9", "is made for chain ABI 9")],
    ),
    "newer headers": (
        replace(C, INCLUDE, INCLUDE + "#undef EMPTCP_HEADER_VERSION\n#define EMPTCP_HEADER_VERSION 9\n"),
        [("abi", f"{MANIFEST}:9", "is made with headers of version 9, this emptcp has 3")],
    ),
    "a fragment that is not there": (
        replace(MANIFEST, "\nmodifies", '\nfragment = "cap"\nmodifies'),
        [("fragment", f"{MANIFEST}:9", "no section emptcp.xdp/cap")],
    ),
    "a member that no parameter names": (
        replace(C, "__u32 bytes;", "__u32 bytes;\n\t__u32 most;"),
        [("struct", f"{MANIFEST}:9", "a member 'most' that no parameter names")],
    ),
    "a struct that is too large": (
        replace(C, "__u32 bytes;", "__u32 bytes;\n\t__u8 reserved[300];"),
        [("struct", f"{MANIFEST}:9", "304 bytes of parameters")],
    ),
    "a parameter without a member": (
        replace(C, "__u32 bytes;", "__u32 reserved;\n#define bytes reserved"),
        [("parameter", f"{MANIFEST}:17", "no member of this name")],
    ),
    "a member of another type": (
        replace(MANIFEST, 'type = "size"\ndefault = "64k"\nmin = 1\nmax = "1g"', 'type = "ipaddr"'),
        [("parameter", f"{MANIFEST}:17", "struct emptcp_address .16 bytes. is needed")],
    ),
    "a range that the member can't hold": (
        replace(C, "__u32 bytes;", "__u16 bytes;"),
        [("range", f"{MANIFEST}:20", "the default of"), ("range", f"{MANIFEST}:22", "the max of")],
    ),
    "a map that is not there": (
        append(MANIFEST, '\n[[export]]\nmap = "classes"\nhelp = "x"\n'),
        [("map", f"{MANIFEST}:25", "exports map 'classes'")],
    ),
    "a key of another size": (
        lambda root: (
            append(C, KEY)(root),
            append(MANIFEST, '\n[[key]]\nname = "pair"\nhelp = "x"\nfields = ["port", "port"]\n')(root),
        ),
        [("key", f"{MANIFEST}:25", "has 6 bytes, and its fields have 4")],
    ),
    "no verdict": (
        body("if (param->bytes == 7)\n\t\treturn 9;"),
        [("answer", f"{C}:9", "actor 'mine' answers 9")],
    ),
    "a verdict that is not declared": (
        body("if (param->bytes == 7)\n\t\treturn EMPTCP_DROP;"),
        [("verdict", f"{C}:9", "answers DROP, which its manifest does not declare")],
    ),
    "a verdict that is never given": (
        replace(MANIFEST, "\nmodifies", '\nverdicts = ["NEXT", "DROP"]\nmodifies'),
        [("verdict-unused", f"{MANIFEST}:15", "declares DROP, and never answers it")],
    ),
    "too much stack": (
        body("volatile __u8 local[300];\n\tlocal[param->bytes & 255] = 1;"),
        [("stack", f"{C}:9", "bytes of stack for xdp"), ("stack", f"{C}:9", "bytes of stack for tc")],
    ),
    "too many instructions": (
        body('asm volatile(".rept 4001\\n\\tr1 = 1\\n\\t.endr" ::: "r1");'),
        [
            ("instructions", f"{C}:9", "instructions for xdp"),
            ("instructions", f"{C}:9", "instructions for tc"),
        ],
    ),
    "nothing to read": (
        lambda root: [replace(MANIFEST, key, f"# {key}")(root) for key in ("summary =", "help =")],
        [
            ("help", f"{MANIFEST}:4", "no summary"),
            ("help", f"{MANIFEST}:10", "actor 'mine' has no help"),
            ("help", f"{MANIFEST}:18", "parameter 'bytes' of actor 'mine' has no help"),
        ],
    ),
    "a module that is not there": (
        replace(MANIFEST, MODULE, 'module = "emptcp_actor_mine.hook"'),
        [("module", f"{MANIFEST}:7", "there is no module")],
    ),
    "a module of others": (
        replace(MANIFEST, MODULE, 'module = "os.path"'),
        [("module", f"{MANIFEST}:7", "is outside package")],
    ),
    "a module that is no Python": (
        append(HOOKS, "def\n"),
        [("module", f"{HOOKS}:15", "it is no Python")],
    ),
    "a hook of another name": (
        replace(HOOKS, "def emptcp_format(", "def emptcp_fromat("),
        [("hook", f"{HOOKS}:10", "there is no hook 'emptcp_fromat'")],
    ),
    "an argument of another name": (
        replace(HOOKS, "emptcp_format(stage: BoundStage)", "emptcp_format(stage: BoundStage, step: int)"),
        [("hook", f"{HOOKS}:10", "hook 'emptcp_format' has no argument 'step'")],
    ),
    "a module without hooks": (
        replace(HOOKS, "@hookimpl\n", ""),
        [("hook", f"{HOOKS}:1", "implements no hook")],
    ),
    "an import that may go": (
        append(HOOKS, "from emptcp import chain\nimport emptcp.pybpf\nfrom emptcp.lab import host\n"),
        [("import", f"{HOOKS}:{line}", "it imports 'emptcp.") for line in (15, 16, 17)],
    ),
}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new({"name": "mine", "kind": "actor"}, tmp_path_factory.mktemp("check") / "mine", defaults=True)


@pytest.fixture
def package(pristine: Path, tmp_path: Path) -> Path:
    target = tmp_path / "mine"
    subprocess.run(["cp", "-r", pristine, target], check=True)
    return target


def expect(found: Iterable[Finding], wanted: list[tuple[str, str, str]]) -> None:
    told = [(one.rule, one.where, one.sentence) for one in found]
    assert len(told) == len(wanted), told
    for rule, where, said in wanted:
        assert any(
            one[0] == rule and re.search(where + "$", one[1]) and re.search(said, one[2]) for one in told
        ), (rule, where, said, told)
    assert all(one.fix and one.why for one in found)


@pytest.mark.parametrize("case", CASES)
def test_each_fault_is_told_with_its_place(package: Path, case: str) -> None:
    edit, wanted = CASES[case]
    edit(package)
    report = check(package, static=True)
    expect(report.findings, wanted)
    assert report.failed == any(RULES[rule][0] == "error" for rule, _, _ in wanted)


def test_a_new_package_has_no_fault(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(package), "--static"]) == 0
    first, second, *rest = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"mine \(xdp\): \d+ instructions, \d+ bytes of stack", first)
    assert re.fullmatch(r"mine \(tc\): \d+ instructions, \d+ bytes of stack", second)
    assert rest == ["not loaded: that needs root, and no --static", f"{package}: 0 errors, 0 warnings"]


@pytest.mark.parametrize("folder", sorted(path.name for path in Path(__file__).parents[3].glob("plugins/*")))
def test_no_plugin_of_the_tree_has_a_fault(folder: str) -> None:
    assert check(Path(__file__).parents[3] / "plugins" / folder, static=True).findings == []


# Wheels


def wheel(package: Path, folder: Path, **more: str) -> Path:
    """Pack a package as hatchling would, with other files beside it."""
    build(package)
    path = folder / "emptcp_actor_mine-0.1.0-py3-none-any.whl"
    info = "emptcp_actor_mine-0.1.0.dist-info"
    files = {
        f"{info}/entry_points.txt": "[emptcp.plugins]\nmine = emptcp_actor_mine\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **more,
    }
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted((package / PACKAGE).iterdir()):
            archive.write(file, f"emptcp_actor_mine/{file.name}")
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def test_a_wheel_is_checked_as_it_is(package: Path, tmp_path: Path) -> None:
    report = check(wheel(package, tmp_path), static=True)
    assert (report.findings, len(report.measured)) == ([], 2)
    assert report.compilers == [find_compiler().version]


def test_what_a_wheel_brings_beside_the_package_is_told(package: Path, tmp_path: Path) -> None:
    tag = {"emptcp_actor_mine-0.1.0.dist-info/WHEEL": "Tag: cp311-cp311-linux_x86_64\n"}
    report = check(wheel(package, tmp_path, **{"mine.pth": "import os\n", "six.py": "", **tag}), static=True)
    wanted = [
        ("wheel-file", "mine.pth", "is run by every Python that starts there"),
        ("wheel-file", "six.py", "is outside of it"),
        ("wheel-tag", "emptcp_actor_mine-0.1.0.dist-info/WHEEL", "cp311-cp311-linux_x86_64 only"),
    ]
    expect(report.findings, wanted)


def test_a_wheel_with_another_object_than_its_record_tells(package: Path, tmp_path: Path) -> None:
    build(package)
    replace(RECORD, '"object": "', '"object": "0')(package)
    edited = tmp_path / "edited"
    edited.mkdir()
    path = wheel_of(package, edited)
    expect(check(path, static=True).findings, [("record", "emptcp_actor_mine/mine.bpf.json", "of another")])


def wheel_of(package: Path, folder: Path) -> Path:
    record = (package / RECORD).read_text()
    made = wheel(package, folder)
    with zipfile.ZipFile(made) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    kept["emptcp_actor_mine/mine.bpf.json"] = record.encode()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in kept.items():
            archive.writestr(name, data)
    return made


# The command


def test_json_has_what_the_text_has(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    CASES["a verdict that is not declared"][0](package)
    assert main(["check", str(package), "--static", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    (found,) = told["findings"]
    assert (told["schema"], told["loaded"], found["rule"], found["level"]) == (1, False, "verdict", "error")
    assert found["where"] == f"{C}:9"
    assert {"sentence", "why", "fix"} <= found.keys()


def test_a_warning_alone_is_no_failure(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    CASES["nothing to read"][0](package)
    assert main(["check", str(package), "--static"]) == 0
    assert "0 errors, 3 warnings" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["nothing.whl", "empty"])
def test_what_is_no_plugin_is_refused(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["check", str(tmp_path / name)]) == 1
    assert "Name " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ("GPL-2.0-only OR BSD-2-Clause", True),
        ("Apache-2.0 OR MIT", True),
        ("Apache-2.0 AND MIT", False),
        ("Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)", False),
        ("MIT AND (GPL-3.0-only OR ISC)", True),
        ("GPL-3.0-or-later", False),
        ("nonsense (", False),
    ],
)
def test_licences_are_read_as_expressions(expression: str, fits: bool) -> None:
    assert compatible(expression) == fits


def test_every_rule_is_provoked() -> None:
    """The kernel's own, and those of wheels, stand in tests of theirs."""
    provoked = {rule for _, wanted in CASES.values() for rule, _, _ in wanted}
    assert provoked | {"verifier", "load", "wheel-file", "wheel-tag"} == set(RULES)
