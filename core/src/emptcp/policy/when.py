# SPDX-License-Identifier: Apache-2.0
"""Read the expressions of ``when`` and the entries of ``do``.

The grammar is published in ``docs/reference/policy-grammar.ebnf``. It is read by recursive descent; nothing
is ever evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from emptcp.errors import EmptcpError, did_you_mean, quoted
from emptcp.policy import model
from emptcp.policy.place import Locate, Place, within
from emptcp.policy.tokens import DECLARED_NAME, DISTRIBUTION, NAME, RESERVED, Token, tokens


def parse(text: str, where: Locate | None = None) -> model.Expression:
    """Read an expression of selectors.

    ``where`` tells the place of an index in ``text``. Raises :class:`EmptcpError` with the place.
    """
    reader = _Reader(text, where)
    expression = reader.either()
    reader.finish("'and', 'or' or the end")
    return expression


def parse_step(text: str, where: Locate | None = None) -> model.Step:
    """Read one entry of a ``do``: an actor, or ``goto CHAIN``."""
    reader = _Reader(text, where)
    step = reader.step()
    reader.finish("the end (one actor per entry)")
    return step


def parse_stage(text: str, kind: str = "actor", where: Locate | None = None) -> model.StageSpec:
    """Read one stage, ``label: name(argument, key=argument)``; ``kind`` is ``selector`` or ``actor``."""
    reader = _Reader(text, where)
    stage = reader.stage(kind)
    reader.finish("the end")
    return stage


def parse_argument(text: str, where: Locate | None = None) -> model.Argument:
    """Read one value as it stands behind ``key=``: ``10mbit``, ``[rtt, bytes]``, ``subflow @rates``."""
    reader = _Reader(text, where)
    argument = reader.argument()
    reader.finish("the end")
    return argument


_EXAMPLES = {"selector": "packet_type('syn')", "actor": "record('rtt')"}


class _Reader:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str, locate: Locate | None) -> None:
        self._locate = locate or within("", text)
        self._tokens = list(tokens(text, self._locate))
        self._next = 0
        self._depth = 0

    # Tokens

    @property
    def _token(self) -> Token:
        return self._tokens[self._next]

    def _place(self, token: Token | None = None) -> Place:
        return self._locate((token or self._token).at)

    def _advance(self) -> Token:
        token = self._token
        if token.kind != "end":
            self._next += 1
        return token

    def _at(self, sign: str, ahead: int = 0) -> bool:
        token = self._tokens[min(self._next + ahead, len(self._tokens) - 1)]
        return token.kind == "sign" and token.text == sign

    def _at_word(self, *words: str) -> bool:
        return self._token.kind == "word" and self._token.text in words

    def _accept(self, sign: str) -> bool:
        found = self._at(sign)
        self._next += found
        return found

    def _expect(self, sign: str, what: str, fix: str) -> None:
        if not self._accept(sign):
            raise self._unexpected(what, fix)

    def _unexpected(self, wanted: str, fix: str) -> EmptcpError:
        return self._error(f"expected {wanted}, found {self._token}", fix)

    def _error(self, sentence: str, fix: str = "", token: Token | None = None) -> EmptcpError:
        return EmptcpError(sentence, fix=fix, where=str(self._place(token)))

    def finish(self, wanted: str) -> None:
        """Refuse whatever is left."""
        if self._token.kind == "end":
            return
        word = self._token.text if self._token.kind == "word" else ""
        hint = did_you_mean(word.lower(), RESERVED) if word not in RESERVED else ""
        if self._at("="):
            hint = "Values stand in parentheses: name(key=value)."
        elif self._at(")"):
            hint = "Remove it, or open a parenthesis before."
        raise self._unexpected(wanted, hint or "Remove what follows, or see what is missing before it.")

    # Expressions

    def either(self) -> model.Expression:
        """``both { "or" both }``"""
        return self._joined("or", self._both, model.disjunction)

    def _both(self) -> model.Expression:
        return self._joined("and", self._unary, model.conjunction)

    def _joined(
        self,
        word: str,
        operand: Callable[[], model.Expression],
        join: Callable[..., model.And | model.Or],
    ) -> model.Expression:
        children = [operand()]
        while self._at_word(word):
            self._advance()
            children.append(operand())
        return children[0] if len(children) == 1 else join(*children)

    def _unary(self) -> model.Expression:
        if self._at_word("not"):
            self._enter()
            child = self._unary()
            self._depth -= 1
            return model.Not(child)
        if self._at("("):
            return self._parenthesised()
        return self._leaf()

    def _parenthesised(self) -> model.Expression:
        opening = self._enter()
        inner = self.either()
        if not self._at(")"):
            wanted = f"')' for the parenthesis at {self._place(opening)}"
            raise self._unexpected(wanted, "Close it, or join selectors by 'and' or 'or'.")
        self._advance()
        self._depth -= 1
        return inner

    def _enter(self) -> Token:
        token = self._advance()
        self._depth += 1
        if self._depth > model.NESTING:
            fix = "Write it flatter, or spread it over several policies."
            raise self._error(f"the expression is nested over {model.NESTING} deep", fix, token)
        return token

    def _leaf(self) -> model.Expression:
        key = self._token
        following = self._tokens[self._next + 1] if key.kind == "word" else key
        if following.kind == "word" and following.text == "in":
            return self._in_set()
        return model.Select(self.stage("selector"))

    def _in_set(self) -> model.InSet:
        place = self._place()
        key = self._name("a key")
        self._advance()
        self._expect("@", "'@' and the name of a set", "Write KEY in @SET, and declare it as [set.SET].")
        return model.InSet(key, self._name("the name of a set", DECLARED_NAME), place)

    # Stages

    def step(self) -> model.Step:
        """``"goto" chain | stage``"""
        if not self._at_word("goto"):
            return self.stage("actor")
        place = self._place(self._advance())
        return model.Goto(self._name("the name of a chain", DECLARED_NAME), place)

    def stage(self, kind: str) -> model.StageSpec:
        """``[ label ":" ] name [ "(" arguments ")" ]``"""
        label = self._label()
        place = self._place()
        name = self._qualified_name(kind)
        positional: list[model.Argument] = []
        keywords: list[model.Keyword] = []
        if self._accept("("):
            self._arguments(name, positional, keywords)
        return model.StageSpec(kind, name, tuple(positional), tuple(keywords), label, place)

    def _label(self) -> str:
        word = self._token
        if word.kind != "word" or not word.text.endswith(":"):
            return ""
        self._check_name(word.text[:-1], "a label", NAME)
        self._advance()
        return word.text[:-1]

    def _qualified_name(self, kind: str) -> str:
        what = "a selector" if kind == "selector" else "an actor"
        if self._token.kind != "word":
            raise self._unexpected(what, f"Write {what}, as in {_EXAMPLES[kind]}.")
        distribution, colon, name = self._token.text.rpartition(":")
        if colon and not DISTRIBUTION.fullmatch(distribution):
            sentence = f"{quoted(distribution)} is no name of a distribution"
            raise self._error(sentence, f"Write {what} as NAME or DIST:NAME.")
        self._check_name(name, what, NAME)
        return self._advance().text

    def _name(self, what: str, pattern: re.Pattern[str] = NAME) -> str:
        if self._token.kind != "word":
            raise self._unexpected(what, f"Write {what} here.")
        self._check_name(self._token.text, what, pattern)
        return self._advance().text

    def _check_name(self, name: str, what: str, pattern: re.Pattern[str]) -> None:
        if pattern is NAME and name in RESERVED:
            raise self._unexpected(what, f"{quoted(name)} is a word of the language.")
        if not pattern.fullmatch(name):
            fix = "A name has letters, digits and _, and begins with no digit."
            raise self._error(f"{quoted(name)} can't be {what}", fix)

    # Arguments

    def _arguments(self, stage: str, positional: list[model.Argument], keywords: list[model.Keyword]) -> None:
        opening = self._tokens[self._next - 1]
        while not self._accept(")"):
            if self._token.kind == "end":
                raise self._error(f"the parenthesis of {quoted(stage)} is never closed", "Add ')'.", opening)
            if positional or keywords:
                wanted = f"',' or ')' in the arguments of '{stage}'"
                self._expect(",", wanted, "Write name(value, key=value).")
            self._one_argument(positional, keywords)

    def _one_argument(self, positional: list[model.Argument], keywords: list[model.Keyword]) -> None:
        if not self._at("=", ahead=1):
            if keywords:
                fix = "Give values without a name first, then name=value."
                raise self._error(f"value {quoted(self._token.text)} without a name follows a named one", fix)
            positional.append(self.argument())
            return
        place = self._place()
        name = self._name("a parameter")
        if any(name == known.name for known in keywords):
            raise EmptcpError(f"parameter '{name}' is given twice", fix="Remove one.", where=str(place))
        self._advance()
        keywords.append(model.Keyword(name, self.argument(), place))

    def argument(self) -> model.Argument:
        """``value | "[" value { "," value } "]" | key "@" map``"""
        place = self._place()
        if self._accept("["):
            return model.Listing(self._items(), place)
        if self._token.kind == "word" and self._at("@", ahead=1):
            key = self._name("a key")
            self._advance()
            return model.FromMap(key, self._name("the name of a map", DECLARED_NAME), place)
        return self._scalar()

    def _items(self) -> tuple[model.Scalar, ...]:
        items: list[model.Scalar] = []
        while not self._accept("]"):
            if items:
                self._expect(",", "',' or ']' in a list", "Write [value, value].")
            items.append(self._scalar())
        return tuple(items)

    def _scalar(self) -> model.Scalar:
        token = self._token
        if token.kind not in ("word", "quote"):
            raise self._unexpected("a value", "Write one, as in 10mbit or 'some text'.")
        self._advance()
        # True and true are the same word; 'True' in quotes is text that a parameter may want as it stands.
        text = token.text.lower() if token.kind == "word" and token.text in ("True", "False") else token.text
        return model.Scalar(text, self._place(token))
