# SPDX-License-Identifier: Apache-2.0
"""BPF Type Format: read it, look types up, describe them in C, compare two of them field by field.

Pure: no libbpf, no root. The format is Documentation/bpf/btf.rst of the kernel.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from emptcp.pybpf.errors import BpfError

MAGIC = 0xEB9F
KINDS = (
    "void", "int", "ptr", "array", "struct", "union", "enum", "fwd", "typedef", "volatile", "const",
    "restrict", "func", "func_proto", "var", "datasec", "float", "decl_tag", "type_tag", "enum64",
)  # fmt: skip

_ALIASES = frozenset({"typedef", "volatile", "const", "restrict", "type_tag"})
_SIZED = frozenset({"int", "struct", "union", "enum", "datasec", "float", "enum64"})
_POINTER = 8

RECENT = 32
"""Objects' types that are kept: each is asked for by several, and takes half a millisecond to read."""


@dataclass(frozen=True)
class Member:
    """A member of a struct or union.

    ``offset`` and ``size`` are bytes; ``bits`` is 0 unless it is a bitfield.
    """

    name: str
    offset: int
    size: int
    type_id: int
    description: str
    bits: int = 0
    bit_offset: int = 0

    @property
    def bitfield(self) -> bool:
        """Whether the member is a bitfield."""
        return self.bits != 0


@dataclass(frozen=True)
class Prototype:
    """A function's arguments as (name, type id), and the type id of what it returns (0: void)."""

    arguments: tuple[tuple[str, int], ...]
    returns: int


@dataclass(frozen=True)
class BtfType:
    """One type as it stands in the data.

    ``ref`` is the type referred to, or the size where the kind has one.
    """

    id: int
    kind: str
    name: str
    vlen: int
    kind_flag: bool
    ref: int
    extra: tuple[tuple[int, ...], ...]

    @property
    def size_field(self) -> int | None:
        """The size in bytes that the type itself states, or None."""
        return self.ref if self.kind in _SIZED else None


class Btf:
    """The types of one object or of the kernel, by id from 1."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.types, self._strings = _parse(data)

    @staticmethod
    def read(data: bytes) -> Btf:
        """Read the content of a ``.BTF`` section; what was read lately is not read again.

        :raises BpfError: it is no BTF, or it is cut short.
        """
        return _read(data)

    def __iter__(self) -> Iterator[BtfType]:
        return iter(self.types[1:])

    def __len__(self) -> int:
        return len(self.types) - 1

    def string(self, offset: int) -> str:
        """Return the string at an offset of the string section."""
        end = self._strings.find(b"\0", offset)
        return self._strings[offset:end].decode(errors="replace")

    def type(self, type_id: int) -> BtfType:
        """Return a type by id.

        :raises BpfError: there is none.
        """
        if not 0 <= type_id < len(self.types):
            raise BpfError(f"BTF has no type {type_id} (it has {len(self)})")
        return self.types[type_id]

    @cached_property
    def _names(self) -> dict[str, list[int]]:
        names: dict[str, list[int]] = {}
        for found in self:
            if found.name:
                names.setdefault(found.name, []).append(found.id)
        return names

    def find(self, name: str, kind: str | None = None) -> BtfType | None:
        """Return the first type of a name (and kind, if given), or None."""
        found = (self.types[number] for number in self._names.get(name, ()))
        return next((entry for entry in found if kind in (None, entry.kind)), None)

    def resolve(self, type_id: int) -> BtfType:
        """Return the type behind typedefs and qualifiers."""
        for _ in range(len(self.types)):
            found = self.type(type_id)
            if found.kind not in _ALIASES:
                return found
            type_id = found.ref
        raise BpfError(f"BTF type {type_id} refers to itself")

    def size(self, type_id: int) -> int:
        """Return the size of a type in bytes (0 for void and functions)."""
        found = self.resolve(type_id)
        if found.kind == "ptr":
            return _POINTER
        if found.kind == "array":
            element, _, count = found.extra[0]
            return self.size(element) * count
        if found.kind == "var":
            return self.size(found.ref)
        return found.size_field or 0

    def members(self, type_id: int) -> list[Member]:
        """Return the members of a struct or union, in order.

        :raises BpfError: the type is neither.
        """
        found = self.resolve(type_id)
        if found.kind not in ("struct", "union"):
            raise BpfError(f"BTF type '{self.describe(type_id)}' has no members")
        return [self._member(found, *entry) for entry in found.extra]

    def _member(self, owner: BtfType, name: int, type_id: int, offset: int) -> Member:
        bits = offset >> 24 if owner.kind_flag else 0
        at = offset & 0xFFFFFF if owner.kind_flag else offset
        return Member(
            name=self.string(name),
            offset=at // 8,
            size=self.size(type_id),
            type_id=type_id,
            description=self.describe(type_id),
            bits=bits,
            bit_offset=at if bits else 0,
        )

    def prototype(self, function: str | int) -> Prototype:
        """Return the prototype of a function by name, or by the id of its FUNC or FUNC_PROTO.

        :raises BpfError: there is no such function.
        """
        found = self.find(function, "func") if isinstance(function, str) else self.type(function)
        if found is not None and found.kind == "func":
            found = self.type(found.ref)
        if found is None or found.kind != "func_proto":
            raise BpfError(f"BTF has no function {function}")
        return Prototype(tuple((self.string(name), type_id) for name, type_id in found.extra), found.ref)

    def values(self, type_id: int) -> dict[str, int]:
        """Return the names and numbers of an enum."""
        found = self.resolve(type_id)
        if found.kind == "enum64":
            return {
                self.string(name): _signed(low | high << 32, found, 64) for name, low, high in found.extra
            }
        return {self.string(name): _signed(value, found, 32) for name, value in found.extra}

    def variables(self, section: str) -> dict[str, tuple[int, int, int]]:
        """Return name -> (offset, size, type id) of the variables of a data section.

        Empty if there is none.
        """
        found = self.find(section, "datasec")
        return (
            {self.type(var).name: (offset, size, self.type(var).ref) for var, offset, size in found.extra}
            if found
            else {}
        )

    def describe(self, type_id: int) -> str:
        """Return a type as C text: ``const struct set_backup *``, ``__u32[4]``."""
        found = self.type(type_id)
        if found.kind in ("struct", "union", "enum", "enum64", "fwd"):
            return self._tagged(found)
        if found.kind in ("const", "volatile", "restrict"):
            return self._qualified(found)
        if found.kind == "ptr":
            return self._pointer(found)
        if found.kind == "array":
            return f"{self.describe(found.extra[0][0])}[{found.extra[0][2]}]"
        if found.kind == "func_proto":
            arguments = ", ".join(self.describe(argument) for _, argument in found.extra) or "void"
            return f"{self.describe(found.ref)}({arguments})"
        if found.kind == "type_tag":
            return self.describe(found.ref)
        return found.name or found.kind

    def _tagged(self, found: BtfType) -> str:
        kind = "enum" if found.kind == "enum64" else found.kind
        if found.kind == "fwd":
            kind = "union" if found.kind_flag else "struct"
        return f"{kind} {found.name or '(anonymous)'}"

    def _qualified(self, found: BtfType) -> str:
        inner = self.describe(found.ref)
        return f"{inner} {found.kind}" if inner.endswith("*") else f"{found.kind} {inner}"

    def _pointer(self, found: BtfType) -> str:
        target = self.type(found.ref)
        if target.kind == "func_proto":
            return self.describe(target.id).replace("(", " (*)(", 1)
        inner = self.describe(found.ref)
        return f"{inner}*" if inner.endswith("*") else f"{inner} *"

    def compare(self, other: Btf, mine: int, theirs: int) -> list[str]:
        """Return how two types differ, one line per field; empty when they are laid out alike.

        Names of typedefs and qualifiers don't count; names, offsets, sizes and signs of members do.
        """
        return _Comparison(self, other).run(mine, theirs, _Spot())


@dataclass(frozen=True)
class _Spot:
    """Where a comparison has come to: the path of members, and its byte within the outermost struct."""

    path: str = ""
    offset: int | None = None

    def line(self, mine: str, theirs: str) -> str:
        return f"{self.path or 'type'}: {mine} here, {theirs} there"


class _Comparison:
    def __init__(self, left: Btf, right: Btf) -> None:
        self._left, self._right = left, right
        # Structs that the walk is within: only damaged BTF has one that holds itself.
        self._open: set[int] = set()

    def run(self, mine: int, theirs: int, spot: _Spot) -> list[str]:
        left, right = self._left.resolve(mine), self._right.resolve(theirs)
        if left.kind != right.kind and {left.kind, right.kind} <= {"enum", "enum64", "int"}:
            return self._plain(mine, theirs, spot)
        if left.kind != right.kind:
            return [self._line(mine, theirs, spot)]
        if left.kind in ("struct", "union"):
            return self._structs(left, right, spot)
        if left.kind == "array":
            return self._arrays(left, right, spot)
        return self._plain(mine, theirs, spot)

    def _plain(self, mine: int, theirs: int, spot: _Spot) -> list[str]:
        signs = {_is_signed(self._left, mine), _is_signed(self._right, theirs)}
        if self._left.size(mine) == self._right.size(theirs) and signs != {True, False}:
            return []
        return [self._line(mine, theirs, spot)]

    def _line(self, mine: int, theirs: int, spot: _Spot) -> str:
        return spot.line(_typed(self._left, mine, spot), _typed(self._right, theirs, spot))

    def _arrays(self, left: BtfType, right: BtfType, spot: _Spot) -> list[str]:
        if left.extra[0][2] != right.extra[0][2]:
            return [self._line(left.id, right.id, spot)]
        return self.run(left.extra[0][0], right.extra[0][0], _Spot(f"{spot.path}[]", spot.offset))

    def _structs(self, left: BtfType, right: BtfType, spot: _Spot) -> list[str]:
        ours = {self._key(m, n): m for n, m in enumerate(self._left.members(left.id))}
        others = {self._key(m, n): m for n, m in enumerate(self._right.members(right.id))}
        if left.id in self._open:
            return []
        self._open.add(left.id)
        lines = self._plain(left.id, right.id, spot)
        for name in [*ours, *(name for name in others if name not in ours)]:
            place = f"{spot.path}.{name}" if spot.path else name
            lines += self._members(ours.get(name), others.get(name), _Spot(place, spot.offset))
        self._open.discard(left.id)
        return lines

    @staticmethod
    def _key(member: Member, number: int) -> str:
        return member.name or f"(anonymous {number})"

    def _members(self, mine: Member | None, theirs: Member | None, spot: _Spot) -> list[str]:
        base = spot.offset or 0
        if mine is None or theirs is None:
            return [spot.line(_shown(mine, base), _shown(theirs, base))]
        at = (mine.offset, mine.bit_offset, mine.bits)
        if at != (theirs.offset, theirs.bit_offset, theirs.bits):
            return [spot.line(_shown(mine, base), _shown(theirs, base))]
        return self.run(mine.type_id, theirs.type_id, _Spot(spot.path, base + mine.offset))


def _is_signed(types: Btf, type_id: int) -> bool | None:
    """Return whether an integer is signed, ``None`` for what is none (an enum has the sign of its use)."""
    found = types.resolve(type_id)
    # BTF_INT_SIGNED is bit 0 of the encoding, bits 24 to 27 of an integer's word.
    return bool(found.extra[0][0] >> 24 & 1) if found.kind == "int" else None


def _typed(types: Btf, type_id: int, spot: _Spot) -> str:
    size = _bytes(types.size(type_id))
    where = f" at byte {spot.offset}" if spot.offset is not None else ""
    return f"{types.describe(type_id)} ({size}{where})"


def _shown(member: Member | None, base: int) -> str:
    if member is None:
        return "absent"
    if member.bits:
        return f"{member.description} ({member.bits} bits at bit {8 * base + member.bit_offset})"
    return f"{member.description} ({_bytes(member.size)} at byte {base + member.offset})"


def _bytes(count: int) -> str:
    return f"{count} byte{'' if count == 1 else 's'}"


def _signed(value: int, found: BtfType, bits: int) -> int:
    return value - (1 << bits) if found.kind_flag and value >> (bits - 1) else value


@lru_cache(maxsize=RECENT)
def _read(data: bytes) -> Btf:
    return Btf(data)


def empty_sections(data: bytes) -> list[int]:
    """Return where the types of sections without variables begin in ``data``.

    :raises BpfError: ``data`` is no BTF, or is broken.
    """
    start, _, _ = _parts(data)
    placed, _ = _placed(data)
    return [start + position for found, position in placed if found.kind == "datasec" and not found.vlen]


def _parse(data: bytes) -> tuple[list[BtfType], bytes]:
    placed, strings = _placed(data)
    types = [BtfType(0, "void", "", 0, False, 0, ()), *(found for found, _ in placed)]
    _refuse_cycles(types)
    return types, strings


def _parts(data: bytes) -> tuple[int, bytes, bytes]:
    """Return where the types begin, the types and the strings."""
    try:
        magic, _version, _flags, head, type_off, type_len, str_off, str_len = struct.unpack_from(
            "<HBBIIIII", data
        )
    except struct.error:
        raise BpfError("this is no BTF: it has no header") from None
    if magic != MAGIC:
        raise BpfError("this is no BTF for a little-endian machine")
    body, strings = data[head + type_off :][:type_len], data[head + str_off :][:str_len]
    if len(body) != type_len or len(strings) != str_len or not strings.endswith(b"\0"):
        raise BpfError("this BTF is cut short")
    return head + type_off, body, strings


@lru_cache(maxsize=RECENT)
def _placed(data: bytes) -> tuple[Sequence[tuple[BtfType, int]], bytes]:
    """Return the types, each with its place among them, and the strings."""
    _, body, strings = _parts(data)
    placed: list[tuple[BtfType, int]] = []
    try:
        position = 0
        while position < len(body):
            found, after = _type(body, position, len(placed) + 1, strings)
            placed.append((found, position))
            position = after
    except (struct.error, IndexError):
        raise BpfError(f"this BTF is broken at type {len(placed) + 1}") from None
    return placed, strings


def _refers_to(found: BtfType) -> list[int]:
    """Return the ids a type's description needs. Members are not among them: they may refer back."""
    if found.kind == "array":
        return [found.extra[0][0]]
    if found.kind == "func_proto":
        return [found.ref, *(type_id for _, type_id in found.extra)]
    return [found.ref] if found.kind in _ALIASES | {"ptr", "func", "var"} else []


def _refuse_cycles(types: list[BtfType]) -> None:
    """Raise for types that contain themselves other than through a struct: no compiler makes them."""
    open_, done = set[int](), set[int]()
    for start in range(len(types)):
        stack = [start]
        while stack:
            number = stack[-1]
            following = [n for n in _refers_to(types[number]) if n not in done and n < len(types)]
            open_.add(number)
            if not following:
                open_.discard(number)
                done.add(stack.pop())
            elif following[0] in open_:
                raise BpfError(f"this BTF is broken: type {following[0]} contains itself")
            else:
                stack.append(following[0])


# Words of 4 bytes after a type's three: (fixed, per element).
_WORDS = {
    "int": (1, 0), "array": (3, 0), "struct": (0, 3), "union": (0, 3), "enum": (0, 2), "func_proto": (0, 2),
    "var": (1, 0), "datasec": (0, 3), "decl_tag": (1, 0), "enum64": (0, 3),
}  # fmt: skip


def _type(body: bytes, position: int, number: int, strings: bytes) -> tuple[BtfType, int]:
    name, info, ref = struct.unpack_from("<III", body, position)
    kind, vlen = KINDS[info >> 24 & 0x1F], info & 0xFFFF
    fixed, each = _WORDS.get(kind, (0, 0))
    size, count = (each, vlen) if each else (fixed, 1 if fixed else 0)
    words = struct.unpack_from(f"<{size * count}I", body, position + 12)
    extra = tuple(words[start * size : (start + 1) * size] for start in range(count))
    text = strings[name : strings.index(b"\0", name)].decode(errors="replace") if name < len(strings) else ""
    found = BtfType(number, kind, text, vlen, bool(info >> 31), ref, extra)
    return found, position + 12 + 4 * size * count
