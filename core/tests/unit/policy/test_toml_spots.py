# SPDX-License-Identifier: Apache-2.0
"""Places of keys, values and characters in TOML."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from emptcp.policy.toml_spots import Path, inside, spots

DOCUMENT = '''
# comment with [brackets] and "quotes"
table = "home" # trailing
"quoted key" . 'lit' = 1
dates = 1979-05-27 07:32:00

[[policy]]
name = """
one"two""three"""
do = [ # list
  "a, ]", 'b # c',
  [1, { x = "y}", z.w = 2 }],
]
[policy.sub]
k = 1
[[policy]]
name = \'\'\'it's ''quoted\'\'\'
[set.bulk]
key = -0.5
[a."b.c".d]
e = { }
'''


def leaves(value: Any, path: Path = ()) -> list[tuple[Path, Any]]:
    """Return every path of a document with its value."""
    if isinstance(value, dict):
        return [
            pair
            for key, item in value.items()
            for pair in [((*path, key), item), *leaves(item, (*path, key))]
        ]
    if isinstance(value, list):
        return [
            pair for i, item in enumerate(value) for pair in [((*path, i), item), *leaves(item, (*path, i))]
        ]
    return []


def test_every_key_and_item_has_a_spot() -> None:
    found = spots(DOCUMENT)
    for path, _value in leaves(tomllib.loads(DOCUMENT)):
        assert path in found, path


def test_the_value_that_begins_at_a_spot_is_the_value_of_the_path() -> None:
    found = spots(DOCUMENT)
    for path, value in leaves(tomllib.loads(DOCUMENT)):
        start = found[path].value
        if isinstance(value, str):
            assert DOCUMENT[inside(DOCUMENT, start, 0)] == value[0], path
        elif isinstance(value, int | float):
            assert DOCUMENT.startswith(str(value), start), path


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("table",), 3),
        (("policy", 0), 7),
        (("policy", 0, "do", 1), 11),
        (("policy", 1), 16),
        (("set", "bulk"), 18),
    ],
)
def test_a_spot_is_on_the_line_of_its_key(path: Path, line: int) -> None:
    assert DOCUMENT.count("\n", 0, spots(DOCUMENT)[path].key) + 1 == line


def test_a_quoted_key_with_escapes_is_found_by_what_it_spells() -> None:
    assert ("a\tb",) in spots('"a\\tb" = 1')


RAW = st.sampled_from(
    [
        "a",
        "b",
        " ",
        "#",
        "]",
        "\\n",
        "\\t",
        '\\"',
        "\\\\",
        "\\u00e9",
        "\\U0001F600",
        "\n",
        "\\\n  \n  ",
        "'",
        '""',
    ]
)


@given(st.lists(RAW, max_size=12))
def test_each_character_of_a_multi_line_string_is_found_where_it_is_written(parts: list[str]) -> None:
    raw = "".join(parts)
    assume('"""' not in raw)
    text = f'k = """\n{raw}\n"""'
    decoded = tomllib.loads(text)["k"]
    start = spots(text)[("k",)].value
    for index, character in enumerate(decoded):
        at = inside(text, start, index)
        written = text[at]
        assert written == character or written == "\\", (index, at)
    assert text[inside(text, start, len(decoded))] == '"'


def test_the_columns_of_a_literal_string_are_its_own() -> None:
    text = "k = 'a\\n b'"
    assert text[inside(text, 4, 4)] == "b"
