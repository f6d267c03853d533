# SPDX-License-Identifier: Apache-2.0
"""Read TOML with places: every refusal names the line and the column of the key or the value it is about."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from typing import Any

from emptcp.errors import EmptcpError, did_you_mean, quoted
from emptcp.policy.place import Locate, Place, line_and_column, within
from emptcp.policy.toml_spots import Path, Spot, inside, spots

LARGEST = 4 << 20
"""Bytes of the largest file that is read."""

_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_KINDS = {str: "a string", bool: "true or false", int: "a number", list: "a list", dict: "a table"}


def read(path: str | os.PathLike[str]) -> Section:
    """Read a TOML file.

    Raises :class:`EmptcpError` when it can't be read, is too large, is no text, or is no TOML.
    """
    return parse(content(path), os.fspath(path))


def content(path: str | os.PathLike[str]) -> str:
    """Return the text of a TOML file. Raises as :func:`read` does, but for what the text says."""
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            found = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        fix = "Give the path of a file that you may read."
        raise EmptcpError(f"file {quoted(name, limit=256)} can't be read: {reason}", fix=fix) from None
    return _text(found, name)


def parse(text: str, source: str = "") -> Section:
    """Read TOML from a text. ``source`` is its name in errors."""
    text = text.replace("\r\n", "\n")
    try:
        data = tomllib.loads(text)
    except RecursionError:
        fix = "Write it flatter."
        raise EmptcpError("lists or tables are nested too deep", fix=fix, where=source) from None
    except ValueError as error:
        raise _syntax_error(error, text, source) from None
    return Section(_Document(text, source), (), data, "the file")


def _text(content: bytes, source: str) -> str:
    if len(content) > LARGEST:
        raise EmptcpError(f"the file is larger than {LARGEST >> 20} MiB", fix="Split it.", where=source)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - (content.rfind(b"\n", 0, error.start) + 1) + 1
        where = str(Place(source, line, column))
        fix = "A policy file or manifest is TOML in UTF-8."
        sentence = f"byte 0x{content[error.start]:02x} is no UTF-8 text"
        raise EmptcpError(sentence, fix=fix, where=where) from None


def _syntax_error(error: ValueError, text: str, source: str) -> EmptcpError:
    message = str(error).splitlines()[0] if str(error) else "the text is no TOML"
    position = _POSITION.search(message)
    place = Place(source, *line_and_column(text, len(text)))
    if position is None:
        place = Place(source)
    elif position[1]:
        place = Place(source, int(position[1]), int(position[2]))
    sentence = f"the TOML is broken: {_printable(_POSITION.sub('', message))}"
    return EmptcpError(sentence, fix="See https://toml.io/en/v1.0.0.", where=str(place))


def _printable(message: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)[:200]


class _Document:
    """The text that all sections of one file share."""

    def __init__(self, text: str, source: str) -> None:
        self.text = text
        self.source = source

    @cached_property
    def spots(self) -> Mapping[Path, Spot]:
        """Where everything stands; found when it is first asked for, which of a good manifest nobody does."""
        try:
            return spots(self.text)
        except RecursionError:  # nested almost as deep as the reader bears: places are of the file alone
            return {}

    def place(self, path: Path, *, value: bool) -> Place:
        """Return the place of a key or of its value; of the whole source when it has none."""
        spot = self.spots.get(path)
        if spot is None:
            return Place(self.source)
        return within(self.source, self.text)(spot.value if value else spot.key)


class Section:
    """A table of the document, read key by key; ``what`` names it in errors (``policy 'bulk'``)."""

    def __init__(self, document: _Document, path: Path, data: Mapping[str, Any], what: str) -> None:
        self._document = document
        self._path = path
        self._data = data
        self.what = what

    # Places and errors

    @property
    def source(self) -> str:
        """The name of the file."""
        return self._document.source

    @property
    def where(self) -> Place:
        """The place of the table's own key."""
        return self._document.place(self._path, value=False)

    def place(self, *path: str | int) -> Place:
        """Return the place of the value at ``path`` below this table."""
        return self._document.place((*self._path, *path), value=True)

    def locate(self, *path: str | int) -> Locate:
        """Return what tells the places of the characters of the string value at ``path``."""
        document = self._document
        spot = document.spots.get((*self._path, *path))
        if spot is None or document.text[spot.value] not in "'\"":
            place = self.where
            return lambda index: place
        whole, start = within(document.source, document.text), spot.value
        return lambda index: whole(inside(document.text, start, index))

    def error(self, sentence: str, *path: str | int, fix: str = "", key: bool = False) -> EmptcpError:
        """Return an error at the value (or the key) at ``path``; without a path at this table."""
        place = self._document.place((*self._path, *path), value=not key) if path else self.where
        return EmptcpError(sentence, fix=fix, where=str(place))

    # Keys

    def __contains__(self, key: str) -> bool:
        return key in self._data

    def names(self) -> tuple[str, ...]:
        """Return the keys in the order of the file."""
        return tuple(self._data)

    def refuse_unknown(self, known: Collection[str]) -> None:
        """Raise for the first key that is not ``known``."""
        for key in self._data:
            if key not in known:
                fix = did_you_mean(key, known) or f"Known are {', '.join(known)}."
                raise self.error(f"{self.what} has no key {quoted(key)}", key, fix=fix, key=True)

    def require(self, key: str, fix: str) -> None:
        """Raise when ``key`` is missing."""
        if key not in self._data:
            raise self.error(f"{self.what} lacks the key '{key}'", fix=fix)

    # Values

    def text(self, key: str, default: str = "") -> str:
        """Return a string."""
        return str(self._of(str, key, default))

    def flag(self, key: str, default: bool = False) -> bool:
        """Return a boolean."""
        return bool(self._of(bool, key, default))

    def number(self, key: str, default: int = 0, least: int = 0, most: int = 2**63 - 1) -> int:
        """Return a whole number within ``least`` and ``most``."""
        value = int(self._of(int, key, default))
        if not least <= value <= most:
            fix = f"Write a number from {least} to {most}."
            raise self.error(f"'{key}' of {self.what} is {_short(value)}, out of range", key, fix=fix)
        return value

    def choice(self, key: str, allowed: Collection[str], default: str) -> str:
        """Return a string that is one of ``allowed``."""
        value = self.text(key, default)
        self._one_of(value, allowed, key)
        return value

    def choices(self, key: str, allowed: Collection[str]) -> tuple[str, ...]:
        """Return one or several strings of ``allowed``, each once."""
        values = self.texts(key)
        for index, value in enumerate(values):
            path = (key, index) if isinstance(self._data[key], list) else (key,)
            self._one_of(value, allowed, *path)
            if value in values[:index]:
                sentence = f"'{key}' of {self.what} names {quoted(value)} twice"
                raise self.error(sentence, *path, fix="Remove one.")
        return values

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings; a single string is a list of one."""
        value = self._data.get(key, [])
        if isinstance(value, str):
            return (value,)
        for index, item in enumerate(self._of(list, key, [])):
            if not isinstance(item, str):
                raise self._wrong_kind(f"item {index + 1} of '{key}'", str, item, key, index)
        return tuple(value)

    def sections(self, key: str, what: str) -> Iterator[Section]:
        """Yield the tables of an array of tables ``[[key]]``."""
        for index, item in enumerate(self._of(list, key, [])):
            if not isinstance(item, dict):
                fix = f"Begin each with a line [[{key}]]."
                raise self.error(f"'{key}' must be an array of tables", key, index, fix=fix)
            yield self._below(what, item, key, index)

    def named_sections(self, key: str, what: str) -> Iterator[tuple[str, Section]]:
        """Yield the tables of ``[key.NAME]`` with their names."""
        for name, item in self._of(dict, key, {}).items():
            if not isinstance(item, dict):
                raise self.error(f"'{key}' must hold tables", key, name, fix=f"Write [{key}.NAME].", key=True)
            yield name, self._below(f"{what} {quoted(name)}", item, key, name)

    def table(self, key: str) -> Section:
        """Return the table at ``key``."""
        return self._below(f"'{key}' of {self.what}", self._of(dict, key, {}), key)

    def raw(self, key: str) -> Any:
        """Return the value as TOML gives it, ``None`` when it is missing."""
        return self._data.get(key)

    def spelled(self, key: str) -> str:
        """Return a string, a number or a boolean as text (``"5s"``, ``5``, ``true``)."""
        return self._spelled(self._data.get(key, ""), f"'{key}'", key)

    def spelled_items(self, key: str) -> tuple[str, ...]:
        """Return the items of a list as text, each as :meth:`spelled` does."""
        return tuple(
            self._spelled(item, f"item {index + 1} of '{key}'", key, index)
            for index, item in enumerate(self._of(list, key, []))
        )

    def _spelled(self, value: Any, what: str, *path: str | int) -> str:
        if not isinstance(value, str | int | float):
            raise self._wrong_kind(what, str, value, *path)
        if isinstance(value, bool):
            return str(value).lower()
        return _short(value) if isinstance(value, int) else str(value)

    def numbers(self, key: str, least: int, most: int) -> tuple[int, ...]:
        """Return one whole number or several."""
        value: Any = self._data.get(key)
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, int) or isinstance(item, bool):
                raise self._wrong_kind(f"'{key}'", int, item, key)
            if not least <= item <= most:
                fix = f"Write a number from {least} to {most}."
                raise self.error(f"{_short(item)} is out of range", key, fix=fix)
        if value == []:
            raise self.error(f"'{key}' of {self.what} is empty", key, fix="Write a number.")
        return tuple(value) if isinstance(value, list) else (value,)

    def _below(self, what: str, data: Mapping[str, Any], *path: str | int) -> Section:
        return Section(self._document, (*self._path, *path), data, what)

    def _of(self, kind: type, key: str, default: Any) -> Any:
        """Return the value of ``key`` after a check of its type; a boolean is no number here."""
        value = self._data.get(key, default)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self._wrong_kind(f"'{key}'", kind, value, key)
        return value

    def _wrong_kind(self, subject: str, kind: type, value: object, *path: str | int) -> EmptcpError:
        is_a = _KINDS.get(type(value), "something else")
        sentence = f"{subject} of {self.what} is {is_a} where {_KINDS[kind]} must stand"
        return self.error(sentence, *path, fix=f"Write {_KINDS[kind]}.")

    def _one_of(self, value: str, allowed: Collection[str], *path: str | int) -> None:
        if value not in allowed:
            fix = did_you_mean(value, allowed) or f"Write one of {', '.join(allowed)}."
            raise self.error(f"'{path[0]}' of {self.what} can't be {quoted(value)}", *path, fix=fix)


def _short(value: object) -> str:
    """Return a number as text; a huge one only by its size, since Python refuses to print it."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"
    return str(value)
