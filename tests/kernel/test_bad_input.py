# SPDX-License-Identifier: Apache-2.0
"""Whatever an operator gets wrong: a short sentence with place and fix, exit 1; what ran goes on running."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from emptcp.chain import running, tables
from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

GOOD = """\
# What emptcp itself would write has no such line.
table = "t"

[[policy]]
name = "good"
hook = "ingress"
dev = "left0"
when = "ip_pair(saddr=10.0.0.0/8)"
do = ["record('packets')"]
"""
MOST_LINES = 6
FRAME = build(options=[Dss(data_ack=7)], src="10.0.1.1", dst="10.0.1.2")

Write = Callable[..., str]


@pytest.fixture
def host(netns: Callable[[], str], emptcp: Any, write: Write) -> Iterator[str]:
    """A namespace in which the good file is in force; it must be just so in the end."""
    name = netns()
    assert emptcp("apply", write(GOOD), "--netns", name).code == 0
    before, entry = state(), tables.read("t")
    yield name
    assert state() == before
    assert tables.read("t") == entry
    assert tables.unfinished() == []
    counted = packets()
    ran = running_program().program.test_run(FRAME)
    assert ran.retval & 0xFFFFFFFF in (0, 0xFFFFFFFF)
    assert packets() == counted + 1


def running_program() -> running.Running:
    return next(one for one in running.everything().values() if one.description.hook == "ingress")


def packets() -> int:
    return running_program().counts()["t/good/record"].packets


def state() -> dict[str, tuple[int, str, list[bytes]]]:
    """Return program id, description and parameters of all that runs, by place."""
    return {
        f"{one.description.device} {one.description.hook}": (
            one.program.id,
            repr(one.description),
            one.values(),
        )
        for one in running.everything().values()
    }


def check_refused(done: Any, *said: str) -> None:
    """Check the form of a refusal: short, to stderr, without a traceback."""
    assert done.code == 1, (done.out, done.err)
    lines = done.err.splitlines()
    assert 1 <= len(lines) <= MOST_LINES, done.err
    assert lines[0].startswith("emptcp: ")
    assert "Traceback" not in done.err
    assert "Error" not in lines[0]
    assert all(len(line) < 500 for line in lines)
    assert all(character.isprintable() or character == "\n" for character in done.err)
    for text in said:
        assert text in done.err, done.err


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


WHEN = 'when = "ip_pair(saddr=10.0.0.0/8)"'
SECOND = GOOD.partition("\n\n")[2]

FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "a syntax error": (changed("[[policy]]", "[[policy]"), ("policy.toml:4:", "the TOML is broken")),
    "an unclosed string": (changed('name = "good"', 'name = "good'), ("policy.toml:5:13",)),
    "an unknown key": (
        changed('hook = "', 'hok = 1\nhook = "'),
        ("policy.toml:6:1: policy 'good' has no key 'hok'", "did you mean 'hook'?"),
    ),
    "an unknown selector": (
        changed("ip_pair", "ip_piar"),
        ("policy.toml:8:9: there is no selector 'ip_piar'", "did you mean 'ip_pair'?"),
    ),
    "an unknown actor": (
        changed("record('packets')", "recrod('packets')"),
        ("policy.toml:9:8: there is no actor 'recrod'", "did you mean 'record'?"),
    ),
    "an actor where a selector belongs": (
        changed(WHEN, "when = \"record('packets')\""),
        ("policy.toml:8:9: 'record' is an actor, not a selector",),
    ),
    "an unknown parameter": (
        changed("saddr=", "sadr="),
        ("policy.toml:8:17: selector 'ip_pair' has no parameter 'sadr'", "did you mean 'saddr'?"),
    ),
    "an unknown value": (
        changed("('packets')", "('packets', 'bites')"),
        ("policy.toml:9:", "parameter 'what' of actor 'record'", "'bites'", "did you mean 'bytes'?"),
    ),
    "an unknown device": (
        changed('dev = "left0"', 'dev = "lefft0"'),
        ("policy.toml:5:", "there is no device 'lefft0'", "Did you mean 'left0'?"),
    ),
    "an unknown hook": (changed('"ingress"', '"ingres"'), ("policy.toml:6:8", "did you mean 'ingress'?")),
    "an unknown back-end": (
        changed('dev = "left0"', 'dev = "left0"\nbackend = "xpd"'),
        ("policy.toml:8:11", "did you mean 'xdp'?"),
    ),
    "an unknown namespace": (
        changed('dev = "left0"', 'dev = "left0"\nnetns = "nowhere"'),
        ("there is no network namespace 'nowhere'",),
    ),
    "a port out of range": (
        changed(WHEN, 'when = "subflow(sport=70000)"'),
        ("policy.toml:8:23: parameter 'sport' of selector 'subflow'", "70000", "65535"),
    ),
    "a prefix out of range": (changed("10.0.0.0/8", "10.0.0.0/33"), ("policy.toml:8:23", "10.0.0.0/33")),
    "a value of the wrong type": (changed("10.0.0.0/8", "eth0"), ("policy.toml:8:23", "'eth0'")),
    "a policy's name twice": (
        GOOD + "\n" + SECOND,
        ("policy.toml:12:8: policy 'good' is there twice (first at ", "policy.toml:5:8"),
    ),
    "an empty do": (
        changed("[\"record('packets')\"]", "[]"),
        ("policy.toml:9:6: 'do' of policy 'good' is empty",),
    ),
    "an empty actor": (changed("record('packets')", ""), ("policy.toml:9:8",)),
    "nesting over 64": (
        changed(WHEN, f'when = "{"(" * 65}ip_pair(){")" * 65}"'),
        ("policy.toml:8:73: ", "nested over 64 deep"),
    ),
    "nesting far over 64": (
        changed(WHEN, f'when = "{"not " * 20000}ip_pair()"'),
        ("policy.toml:8:", "nested over 64 deep"),
    ),
    "Python": (changed(WHEN, "when = \"__import__('os').system('id')\""), ("policy.toml:8:25",)),
    "arithmetic": (changed(WHEN, 'when = "1 + 1"'), ("policy.toml:8:9",)),
    "another language": (
        changed("ip_pair(saddr=10.0.0.0/8)", "ip_pair() && subflow()"),
        ("policy.toml:8:19",),
    ),
    "a comparison": (changed("ip_pair(saddr=10.0.0.0/8)", "sport == 443"), ("policy.toml:8:15",)),
    "an empty expression": (changed(WHEN, 'when = ""'), ("policy.toml:8:9",)),
    "an empty file": ("", ("lacks the key 'table'",)),
    "deep arrays": (f"table = {'[' * 20000}", ("policy.toml",)),
    "control characters": (changed("good", "go\\u001b[31mod"), ("can't be the name of a policy",)),
    "a name of 10,000 letters": (changed("good", "g" * 10000), ("can't be the name of a policy",)),
    "an unknown selector of 10,000 letters": (
        changed("ip_pair", "x" * 10000),
        ("there is no selector 'xxx",),
    ),
    "plain text": ("this is no policy\n", ("policy.toml:1:6: the TOML is broken",)),
    "JSON": ('{"table": "t"}', ("policy.toml:1:1: the TOML is broken",)),
}


@pytest.mark.parametrize("case", FILES)
def test_a_wrong_file_is_refused_with_its_place(host: str, emptcp: Any, write: Write, case: str) -> None:
    text, said = FILES[case]
    check_refused(emptcp("apply", write(text), "--netns", host), *said)


@pytest.mark.parametrize("case", ["a syntax error", "an unknown device", "an unknown actor", "an empty do"])
@pytest.mark.parametrize("command", ["diff", "apply --dry-run"])
def test_the_commands_that_only_look_refuse_it_too(
    host: str, emptcp: Any, write: Write, case: str, command: str
) -> None:
    text, said = FILES[case]
    check_refused(emptcp(*command.split(), write(text), "--netns", host), *said)


@pytest.mark.parametrize(
    "content",
    [
        bytes(range(256)) * 4,
        b"\0" * 4096,
        b"\x7fELF\x02\x01\x01" + bytes(57),
        "table".encode("utf-16"),
        b"\xff",
    ],
    ids=["every byte", "zeros", "an object", "UTF-16", "no UTF-8"],
)
@pytest.mark.parametrize("as_", ["policy", "capture"])
def test_binary_junk_is_refused(
    host: str, emptcp: Any, write: Write, tmp_path: Path, content: bytes, as_: str
) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(content)
    if as_ == "policy":
        check_refused(emptcp("apply", str(junk), "--netns", host), "junk")
    else:
        check_refused(emptcp("trace", str(junk), "--policy", write(GOOD)), "junk")


@pytest.mark.parametrize("what", ["nothing", "a folder", "a link to itself"])
def test_what_is_no_file_is_refused(host: str, emptcp: Any, tmp_path: Path, what: str) -> None:
    path = tmp_path / "no-file"
    if what == "a folder":
        path.mkdir()
    elif what == "a link to itself":
        path.symlink_to(path)
    check_refused(emptcp("apply", str(path), "--netns", host), "no-file")
    check_refused(emptcp("trace", str(path), "--policy", str(path)), "no-file")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ip_pair", "saddr=300.0.0.1"), "300.0.0.1"),
        (("ip_pair", "saddr=10.0.0.0/8 or"), "saddr=, column 12: expected the end, found 'or'"),
        (("record", "what=[]"), "parameter 'what' of actor 'record': it is empty"),
        (("when=ip_pair(",), "when=, column 8: the parenthesis of 'ip_pair' is never closed"),
        (("when=nothing()",), "there is no selector 'nothing'"),
        (("when=" + "(" * 65 + "ip_pair()" + ")" * 65,), "nested over 64 deep"),
    ],
    ids=["address", "words", "no value", "cut", "selector", "nesting"],
)
def test_a_wrong_value_is_refused_while_the_policy_runs(
    host: str, emptcp: Any, words: tuple[str, ...], said: str
) -> None:
    check_refused(emptcp("tune", "good", *words), said)


WILD = """
#include <emptcp/actor.h>

struct mark {
	__u32 number;
};

EMPTCP_ACTOR(mark, pkt, struct mark, param)
{
	return *(__u32 *)(long)param->number;
}
"""
MARKED = """\
table = "marked"
[[policy]]
name = "m"
hook = "ingress"
dev = "right0"
do = ["mark({number})"]
"""
BESIDE = """
[[policy]]
name = "beside"
hook = "egress"
dev = "right0"
do = ["record('packets')"]
"""


def test_a_strangers_plugin_is_used_only_as_it_was_enabled(
    host: str, emptcp: Any, write: Write, stranger: Callable[..., Path]
) -> None:
    folder = stranger()
    apply = ("apply", write(MARKED.format(number=2), "marked.toml"), "--netns", host)
    known = "marked.toml:6:8: actor 'mark' comes from plugin 'mark', which is"
    check_refused(emptcp(*apply), f"{known} found", "Run: emptcp plugins enable mark")
    assert emptcp("plugins", "enable", "mark").code == 0
    assert emptcp(*apply).code == 0
    assert emptcp("remove", "marked").code == 0
    too_high = write(MARKED.format(number=101), "marked.toml")
    check_refused(emptcp("apply", too_high, "--netns", host), "marked.toml:6:13", "100")
    write(MARKED.format(number=2), "marked.toml")

    assert emptcp("plugins", "disable", "mark").code == 0
    check_refused(emptcp(*apply), f"{known} disabled", "Run: emptcp plugins enable mark")
    assert emptcp("plugins", "enable", "mark").code == 0
    (folder / "__init__.py").write_text("# something else\n")
    check_refused(emptcp(*apply), f"{known} changed", "Run: emptcp plugins enable mark")
    (folder / "emptcp.toml").write_text("schema = 1\nname = ")
    check_refused(emptcp(*apply), "there is no actor 'mark'")


def test_a_broken_plugin_is_named_with_what_is_wrong_and_hinders_no_other(
    host: str, emptcp: Any, write: Write, stranger: Callable[..., Path]
) -> None:
    folder = stranger(plugin='module = "strangers_mark.hooks"')
    (folder / "hooks.py").write_text("raise RuntimeError('out of order')\n")
    check_refused(emptcp("plugins", "enable", "marc"), "'marc'", "did you mean 'mark'?")
    assert emptcp("plugins", "enable", "mark").code == 0
    # Its Python side can't be imported; the other tables can be changed all the same.
    done = emptcp("apply", write(GOOD), "--netns", host)
    assert done.code == 0
    assert "Traceback" not in done.err
    assert "plugin 'mark' failed in import (RuntimeError: out of order)" in done.err
    (folder / "mark.bpf.o").write_bytes(b"\x7fELF junk")
    check_refused(emptcp("plugins", "enable", "mark"), "plugin 'mark' can't be enabled", "mark.bpf.o")
    assert emptcp("plugins", "list").code == 0


def test_a_plugin_that_does_not_pass_the_verifier_is_named_with_its_line(
    host: str, emptcp: Any, write: Write, stranger: Callable[..., Path]
) -> None:
    from emptcp_sdk.compiler import compile_source, find_compiler

    folder = stranger()
    source = folder / "mark.bpf.c"
    source.write_text(WILD)
    compile_source(find_compiler(), source, folder / "mark.bpf.o")
    assert emptcp("plugins", "enable", "mark").code == 0
    done = emptcp("apply", write(MARKED.format(number=2) + BESIDE, "marked.toml"), "--netns", host)
    check_refused(
        done,
        "stage 'mark' (plugin 'mark') of policy 'marked/m': the verifier refuses",
        "invalid mem access",
        "return *(__u32 *)(long)param->number;",
        "the whole log is in",
    )
    with running.everything() as found:
        assert "marked" not in running.tables(found)


def test_a_stage_that_needs_a_feature_is_refused_where_the_kernel_lacks_it(
    host: str, emptcp: Any, write: Write, stranger: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger(actor='features = ["ringbuf"]')
    assert emptcp("plugins", "enable", "mark").code == 0
    apply = ("apply", write(MARKED.format(number=2), "marked.toml"), "--netns", host)
    monkeypatch.setenv("EMPTCP_DISABLE", "ringbuf")
    check_refused(emptcp(*apply), "marked.toml:6:8", "actor 'mark' of policy 'm'", "ring buffer", "doctor")
    monkeypatch.setenv("EMPTCP_DISABLE", "")
    assert emptcp(*apply).code == 0
    assert emptcp("remove", "marked").code == 0


def test_a_command_that_needs_a_feature_says_which(
    host: str, emptcp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", "bpf_iter_tcp")
    check_refused(emptcp("connections", "--netns", host), "MPTCP subflows", "EMPTCP_DISABLE")


COMMANDS = (["apply", "FILE"], ["list"], ["remove", "t"], ["tune", "good", "record", "what=[bytes]"])


def outside(words: list[str], *prefix: str, **environment: str) -> Any:
    """Run the command line in a process of its own."""
    command = [*prefix, sys.executable, "-m", "emptcp.cli.main", *words]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False, env={**os.environ, **environment}
    )
    return Outside(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Outside:
    code: int
    out: str
    err: str


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_without_root_every_change_is_refused(host: str, write: Write, words: list[str]) -> None:
    path = write(GOOD)
    # Nobody, who may read every file nevertheless: Python itself may stand in a folder of root's.
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    reading = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    done = outside([path if word == "FILE" else word for word in words], *nobody, *reading)
    check_refused(done, f"emptcp {words[0]} reads and changes the kernel, which takes root", "sudo")


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_root_without_capabilities_is_told_so(host: str, write: Write, words: list[str]) -> None:
    words = [write(GOOD) if word == "FILE" else word for word in words]
    if words[0] == "apply":
        words += ["--netns", host]
    none = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    check_refused(outside(words, *none), "permit", "Run as root with its capabilities")


def test_without_libbpf_all_three_ways_to_it_are_named(host: str) -> None:
    done = outside(["list"], EMPTCP_LIBBPF="/nowhere/libbpf.so.1")
    check_refused(done, "/nowhere/libbpf.so.1", "EMPTCP_LIBBPF")


def test_the_command_is_found_when_it_is_misspelt(host: str) -> None:
    done = outside(["aply", "x"])
    assert done.code == 2
    assert "did you mean 'apply'?" in done.err
    assert "Traceback" not in done.err
