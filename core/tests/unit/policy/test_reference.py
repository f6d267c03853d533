# SPDX-License-Identifier: Apache-2.0
"""What is published under ``docs/reference`` says what the code does."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emptcp.errors import EmptcpError
from emptcp.plugins import schema as manifest_schema
from emptcp.policy import schema, when
from emptcp.policy.tokens import RESERVED

ROOT = Path(__file__).parents[4]
REFERENCE = ROOT / "docs" / "reference"


# The grammar


class Grammar:
    """Recognises texts by the published EBNF and nothing else."""

    def __init__(self, text: str) -> None:
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
        rules = dict(re.findall(r"^(\w+)\s*::=(.*?)(?=^\w+\s*::=|\Z)", text, re.DOTALL | re.MULTILINE))
        self.words = {name: re.compile(_pattern(rule)) for name, rule in rules.items() if name.isupper()}
        self.rules = {name: _alternatives(rule) for name, rule in rules.items() if name.islower()}

    def accepts(self, rule: str, text: str) -> bool:
        """Return whether the whole text follows from a rule."""
        words = self._split(text)
        return words is not None and any(end == len(words) for end in self._rule(rule, words, 0))

    def _split(self, text: str) -> list[str] | None:
        longest = re.compile(rf"\s+|({self.words['WORD'].pattern}|{self.words['QUOTE'].pattern}|[()\[\],=@])")
        words, at = [], 0
        while at < len(text):
            match = longest.match(text, at)
            if match is None:
                return None
            words += [match[1]] if match[1] else []
            at = match.end()
        return words

    def _rule(self, name: str, words: list[str], at: int) -> Iterator[int]:
        for sequence in self.rules[name]:
            yield from self._sequence(sequence, words, at)

    def _sequence(self, sequence: list[Any], words: list[str], at: int) -> Iterator[int]:
        if not sequence:
            yield at
            return
        (item, repeat), rest = sequence[0], sequence[1:]
        if repeat in "?*" and repeat:
            yield from self._sequence(rest, words, at)
        for end in self._item(item, words, at):
            again = [(item, repeat), *rest] if repeat == "*" else rest
            yield from self._sequence(again, words, end)

    def _item(self, item: Any, words: list[str], at: int) -> Iterator[int]:
        if isinstance(item, list):
            for sequence in item:
                yield from self._sequence(sequence, words, at)
        elif item in self.rules:
            yield from self._rule(item, words, at)
        elif at < len(words) and self._is(item, words[at]):
            yield at + 1

    def _is(self, item: str, word: str) -> bool:
        if item.startswith('"'):
            return word == item[1:-1]
        reserved = item in ("NAME", "QUALIFIED") and word.rpartition(":")[2] in RESERVED
        return not reserved and self.words[item].fullmatch(word) is not None


TERM = re.compile(r"\s*(\"[^\"]*\"|'[^']*'|\[\^?(?:\\.|[^\\\]])+\]|\w+|[()|?*+])")


def _pattern(rule: str) -> str:
    """Return the regular expression of a rule about words."""
    parts = (part.strip() for part in TERM.findall(rule))
    return "".join(re.escape(_unescaped(part)) if part[0] in "'\"" else part for part in parts)


def _unescaped(literal: str) -> str:
    return literal[1:-1].replace("\\\\", "\\")


def _alternatives(rule: str) -> list[list[Any]]:
    """Return the alternatives of a rule; each is a sequence of items with their ``?``, ``*`` or nothing."""
    return _nested(iter([*(part.strip() for part in TERM.findall(rule)), ")"]))


def _nested(parts: Iterator[str]) -> list[list[Any]]:
    found: list[list[Any]] = [[]]
    for part in parts:
        if part == ")":
            return found
        if part == "|":
            found.append([])
        elif part in "?*":
            found[-1][-1] = (found[-1][-1][0], part)
        else:
            found[-1].append((_nested(parts) if part == "(" else part, ""))
    return found


GRAMMAR = Grammar((REFERENCE / "policy-grammar.ebnf").read_text())

WORDS = st.sampled_from(
    [
        "a",
        "b",
        "and",
        "or",
        "not",
        "in",
        "goto",
        "(",
        ")",
        "[",
        "]",
        ",",
        "=",
        "@",
        "'x y'",
        '"z"',
        "5%",
        "l:",
        "d-1:c",
        "1a",
    ]
)


def reads(rule: str, text: str) -> bool:
    """Return whether emptcp reads a text. What the grammar does not say is left out."""
    try:
        when.parse(text) if rule == "expression" else when.parse_step(text)
    except EmptcpError as error:
        return any(words in error.sentence for words in ("given twice", "follows a named one", "nested over"))
    return True


@given(st.sampled_from(["expression", "step"]), st.lists(WORDS, max_size=9).map(" ".join))
def test_the_published_grammar_and_the_reader_accept_the_same(rule: str, text: str) -> None:
    assert GRAMMAR.accepts(rule, text) == reads(rule, text)


@pytest.mark.parametrize(
    "text",
    [
        "a and not (b or c(1, k=[x, 'y z'], m=subflow @rates)) or address in @bulk-1",
        r"a('it\'s', \"q\")".replace(r"\"", '"'),
        "lbl: some-dist.x:a()",
    ],
)
def test_the_published_grammar_accepts_what_is_meant_to_be_written(text: str) -> None:
    assert GRAMMAR.accepts("expression", text)
    assert reads("expression", text)


# The schemas


def valid(value: Any, rule: dict[str, Any]) -> bool:
    """Return whether a value is valid: as much of JSON Schema as ours use."""
    if "oneOf" in rule:
        return sum(valid(value, one) for one in rule["oneOf"]) == 1
    if "const" in rule or "enum" in rule:
        return value in rule.get("enum", [rule.get("const")])
    kinds = {
        "object": dict,
        "array": list,
        "string": str,
        "boolean": bool,
        "integer": int,
        "number": int | float,
    }
    named = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
    if not any(isinstance(value, kinds[kind]) for kind in named):
        return False
    if isinstance(value, list):
        items = "items" not in rule or all(valid(item, rule["items"]) for item in value)
        return len(value) >= rule.get("minItems", 0) and items
    if isinstance(value, dict):
        return valid_table(value, rule)
    return True


def valid_table(value: dict[str, Any], rule: dict[str, Any]) -> bool:
    """Return whether a table has the keys it must have, no others, and valid values."""
    others = rule.get("additionalProperties", True)
    known = rule.get("properties", {})
    if not all(key in value for key in rule.get("required", [])):
        return False
    return all(
        valid(item, known[key])
        if key in known
        else others is True or (others is not False and valid(item, others))
        for key, item in value.items()
    )


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("policy-file.schema.json", schema.policy_file),
        ("plugin-manifest.schema.json", manifest_schema.plugin_manifest),
    ],
)
def test_the_published_schema_is_the_one_the_code_makes(name: str, made: Any) -> None:
    assert (REFERENCE / name).read_text() == schema.text(made())


POLICY = 'table = "t"\n[[policy]]\nname = "p"\nhook = "ingress"\ndev = ["x"]\ndo = ["a"]\n'


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (POLICY, True),
        (POLICY + '[set.s]\nkey = "subflow"\nsize = 5\ntimeout = "5s"\n', True),
        (POLICY + '[[controller]]\nname = "c"\nuse = "u"\nwith = { a = 1 }\n', True),
        (POLICY.replace("do =", "doo ="), False),
        (POLICY.replace('"ingress"', '"inside"'), False),
        (POLICY.replace('["a"]', "[]"), False),
        (POLICY.replace('["x"]', "1"), False),
        (POLICY + "[set.s]\nsize = 5\n", False),
    ],
)
def test_the_schema_and_the_reader_agree(text: str, good: bool) -> None:
    assert valid(tomllib.loads(text), schema.policy_file()) == good
    try:
        schema.file.loads(text)
    except EmptcpError:
        assert not good
    else:
        assert good


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("plugins/*/src/*/emptcp.toml")), ids=lambda path: path.parent.name
)
def test_the_projects_own_manifests_are_valid(path: Path) -> None:
    assert valid(tomllib.loads(path.read_text()), manifest_schema.plugin_manifest())
