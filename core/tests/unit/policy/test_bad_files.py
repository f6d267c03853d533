# SPDX-License-Identifier: Apache-2.0
"""Files that are wrong: one sentence with the object and the rule, its place, and what to write instead."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emptcp.errors import EmptcpError
from emptcp.policy import file

GOOD = """\
table = "home"
engine = "fused"

[[policy]]
name = "first"
hook = "ingress"
dev = ["wwan*"]
when = "subflow in @bulk and not packet_type('syn')"
do = ["record('rtt')", "goto slow"]

[[policy]]
name = "second"
hook = ["ingress", "egress"]
dev = "eth0"
when = "(a or b) and c(saddr=10.0.0.0/8, dport=443)"
do = ["slow: set_backup(on=true)"]

[chain.slow]
do = ["record('bytes')"]

[set.bulk]
key = "subflow"
size = 65536
timeout = "5s"

[map.rates]
key = "subflow"
type = "rate"

[[controller]]
name = "c"
use = "ecf"
paths = ["a"]

[path.a]
dev = "eth0"
"""


def outcome(read: Callable[[], object]) -> EmptcpError | None:
    """Return the refusal that a reading ends with, if it does; any other error passes."""
    try:
        read()
    except EmptcpError as error:
        return error
    return None


def refusal(text: str) -> EmptcpError:
    """Return the error that reading a text gives."""
    error = outcome(lambda: file.loads(text, "home.toml"))
    assert error is not None
    return error


def test_the_good_file_is_good() -> None:
    assert len(file.loads(GOOD).policies) == 2


@pytest.mark.parametrize(
    ("old", "new", "where", "sentence", "fix"),
    [
        # The text itself.
        ("[[policy]]", "[[policy]", None, "the TOML is broken", "toml.io"),
        ('table = "home"', 'table = "home', "1:14", "the TOML is broken", "toml.io"),
        ('name = "first"', 'name = "first"\nname = "again"', "6:15", "Cannot overwrite a value", "toml.io"),
        ('table = "home"\n', "", "", "lacks the key 'table'", 'table = "home"'),
        # Keys.
        ("engine =", 'guard_window = "2d"\nengine =', "2:16", "no unit 'd' that a time knows", "5s"),
        ("engine =", 'guard_window = "25h"\nengine =', "2:16", "out of range", "from 1s to 24h"),
        ("engine =", 'guard_window = "9ms"\nengine =', "2:16", "out of range", "0s to watch not at all"),
        ("engine =", "engin =", "2:1", "the file has no key 'engin'", "did you mean 'engine'?"),
        ("engine =", 'tail.carrier = "metadata"\nengine =', "2:1", "of the engine 'tail'", 'engine = "tail"'),
        ("engine =", 'tail.carrier = "meta"\nengine =', "2:16", "can't be 'meta'", "did you mean"),
        ("engine =", "tail.carier = 1\nengine =", "2:6", "no key 'carier'", "did you mean 'carrier'?"),
        (
            'hook = "ingress"',
            'hok = 1\nhook = "ingress"',
            "6:1",
            "policy 'first' has no key 'hok'",
            "'hook'?",
        ),
        ("[chain.slow]", "[chains.slow]", "18:2", "has no key 'chains'", "did you mean 'chain'?"),
        ("size =", "sizes =", "23:1", "set 'bulk' has no key 'sizes'", "did you mean 'size'?"),
        ("[map.rates]\n", "[map.rates]\nlruu = true\n", "27:1", "map 'rates' has no key 'lruu'", "'lru'?"),
        ('use = "ecf"', 'used = "ecf"', "32:1", "controller 'c' has no key 'used'", "did you mean 'use'?"),
        ('name = "second"\n', "", "11:3", "policy lacks the key 'name'", 'name = ".."'),
        ('hook = "ingress"\n', "", "4:3", "policy 'first' lacks the key 'hook'", "ingress"),
        ('dev = "eth0"\nwhen', "when", "11:3", "policy 'second' lacks the key 'dev'", "dev ="),
        ("do = [\"record('bytes')\"]", "", "18:8", "chain 'slow' lacks the key 'do'", "ACTOR"),
        ('key = "subflow"\nsize', "size", "21:6", "set 'bulk' lacks the key 'key'", "key ="),
        # Kinds of values.
        ('table = "home"', "table = 1", "1:9", "'table' of the file is a number where a string", "a string"),
        ('dev = "eth0"\nwhen', "dev = 1\nwhen", "14:7", "is a number where a list", "a list"),
        ('["wwan*"]', '["wwan*", 1]', "7:17", "item 2 of 'dev' of policy 'first' is a number", "a string"),
        ("size = 65536", "size = true", "23:8", "is true or false where a number", "a number"),
        ("size = 65536", "size = 0", "23:8", "out of range", "from 1"),
        ("size = 65536", "size = 99999999999999999999", "23:8", "out of range", "from 1"),
        (
            '[[policy]]\nname = "second"',
            '[policy.x]\nname = "second"',
            "11:9",
            "policy 'first' has no key 'x'",
            "Known",
        ),
        ("[set.bulk]", "[[set.bulk]]", "21:7", "'set' must hold tables", "[set.NAME]"),
        ('timeout = "5s"', 'timeout = "5"', "24:11", "'timeout' of set 'bulk': '5' lacks its unit", "20ms"),
        ('type = "rate"', 'type = "rat"', "28:8", "'rat' is no type", "did you mean 'rate'?"),
        # Choices.
        ('engine = "fused"', 'engine = "fuse"', "2:10", "can't be 'fuse'", "did you mean 'fused'?"),
        ('hook = "ingress"', 'hook = "ingres"', "6:8", "can't be 'ingres'", "did you mean 'ingress'?"),
        ('"egress"]', '"ingress"]', "13:20", "names 'ingress' twice", "Remove one"),
        ('dev = "eth0"\nwhen', 'backend = "xpd"\ndev = "eth0"\nwhen', "14:11", "can't be 'xpd'", "'xdp'?"),
        # Names.
        ('"second"', '"first"', "12:8", "policy 'first' is there twice (first at home.toml:5:8)", "own name"),
        ('"second"', '""', "12:8", "'' can't be the name of a policy", "1 to 64"),
        ('table = "home"', 'table = "../etc"', "", "can't be the name of a table", "letters"),
        ('["wwan*"]', '["a/b"]', "5:8", "'a/b' in policy 'first' can't be the name of a device", "15"),
        ('["wwan*"]', "[]", "5:8", "policy 'first' names no device", "dev ="),
        ("[set.bulk]", '[set."b b"]', "21:6", "'b b' can't be a name", "letters"),
        # Expressions and chains.
        ("not packet_type('syn')", "no packet_type('syn')", "8:33", "found 'packet_type'", ""),
        ("packet_type('syn')", "packet_type('syn'", "8:45", "is never closed", "Add ')'"),
        ("@bulk and", "@bulkk and", "8:9", "there is no set 'bulkk'", "did you mean 'bulk'?"),
        (
            "subflow in",
            "address in",
            "8:9",
            "set 'bulk' has key 'subflow', not 'address'",
            "subflow in @bulk",
        ),
        ('"goto slow"', '"goto slov"', "9:25", "there is no chain 'slov'", "did you mean 'slow'?"),
        ('["record(\'rtt\')", "goto slow"]', "[]", "9:6", "'do' of policy 'first' is empty", "at least one"),
        (
            '["record(\'rtt\')", "goto slow"]',
            "['goto slow', 'a']",
            "9:8",
            "nothing runs after 'goto'",
            "last",
        ),
        ("[\"record('bytes')\"]", '["goto slow"]', "19:8", "comes back to itself", "Remove a goto"),
        (
            '"goto slow"',
            '"slow: a", "slow: b"',
            "9:42",
            "label 'slow' is there twice in policy 'first'",
            "own",
        ),
        ("c(saddr=", "c(saddr=1, saddr=", "15:33", "parameter 'saddr' is given twice", "Remove one"),
        ("c(saddr=10.0.0.0/8", "c(rate=subflow @rate", "15:29", "there is no map 'rate'", "'rates'?"),
        ('paths = ["a"]', 'paths = ["b"]', "31:8", "there is no path 'b'", "[path.b]"),
        ("(a or b)", "(" * 65 + "a" + ")" * 65, "15:73", "nested over 64 deep", "flatter"),
    ],
)
def test_a_mistake_is_named_placed_and_answered(
    old: str, new: str, where: str | None, sentence: str, fix: str
) -> None:
    assert old in GOOD
    error = refusal(GOOD.replace(old, new, 1))
    assert sentence in error.sentence
    assert fix in error.fix
    if where is not None:
        assert error.where == (f"home.toml:{where}" if where else "home.toml")
    assert len(str(error).splitlines()) <= 6


def test_binary_junk_is_told_by_its_first_wrong_byte(tmp_path: Path) -> None:
    path = tmp_path / "junk.toml"
    path.write_bytes(b"table = 'x'\n\x7fELF\xff\xfe")
    with pytest.raises(EmptcpError, match=r"junk.toml:2:5: byte 0xff is no UTF-8 text"):
        file.load(path)


@pytest.mark.parametrize("name", ["missing.toml", ".", "a\0b"])
def test_what_can_not_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(EmptcpError, match="can't be read: "):
        file.load(f"{tmp_path}/{name}")


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(EmptcpError, match="larger than 4 MiB"):
        file.load("/dev/zero")


def test_a_file_without_permission_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "secret.toml"
    path.touch(mode=0)
    if os.access(path, os.R_OK):
        pytest.skip("probe: whoever runs this may read any file")
    with pytest.raises(EmptcpError, match="Permission denied"):
        file.load(path)


@pytest.mark.parametrize("opening", ["[", "{a=", "a.", "[[", '"'])
def test_deep_nesting_of_toml_is_a_sentence_too(opening: str) -> None:
    assert refusal(f"table = 't'\nx = {opening * 5000}")


def test_a_message_never_carries_control_characters_to_the_terminal() -> None:
    error = refusal('table = "home"\n"\\u001b[2J\\n" = 1\n')
    assert all(line.isprintable() for line in str(error).splitlines())


@given(st.binary(max_size=300))
@example(b"\xef\xbb\xbftable = 'x'")
@example(b"\x00")
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    path.write_bytes(content)
    error = outcome(lambda: file.load(path))
    assert error is None or 1 <= len(str(error).splitlines()) <= 6


PIECES = st.sampled_from(
    [*"[]{}\"'=,.#@()\n\\-0a ", "not ", "and ", '"""', "'''", "[[", "do = ", "\x00", "é", "1e5", "true"]
)


@given(st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 12), PIECES), min_size=1, max_size=4))
def test_a_damaged_file_is_read_or_refused(edits: list[tuple[int, int, str]]) -> None:
    text = GOOD
    for at, removed, piece in edits:
        text = text[:at] + piece + text[at + removed :]
    error = outcome(lambda: file.loads(text, "home.toml"))
    if error is not None:
        assert error.where.startswith("home.toml")
        assert error.fix
        assert 1 <= len(str(error).splitlines()) <= 6
        assert all(line.isprintable() for line in str(error).splitlines())
