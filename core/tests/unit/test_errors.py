# SPDX-License-Identifier: Apache-2.0
"""How a refusal prints, and what helps to read it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from emptcp.errors import EmptcpError, did_you_mean, quoted


def test_a_refusal_prints_its_place_its_sentence_and_its_fix() -> None:
    assert (
        str(EmptcpError("it is wrong", fix="Do this.", where="a.toml:1:2"))
        == "a.toml:1:2: it is wrong\nDo this."
    )
    assert str(EmptcpError("it is wrong")) == "it is wrong"


def test_a_near_word_is_offered_and_a_far_one_is_not() -> None:
    assert did_you_mean("recrod", ["record", "set_backup"]) == "did you mean 'record'?"
    assert did_you_mean("xyz", ["record"]) == ""


@given(st.text(max_size=80))
def test_quoted_text_is_short_and_prints_on_one_line(text: str) -> None:
    shown = quoted(text)
    assert shown.isprintable()
    assert len(shown) <= 48 + len("''...")


def test_ordinary_text_is_quoted_as_it_is() -> None:
    assert quoted("slow path é") == "'slow path é'"
