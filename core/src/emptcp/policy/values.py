# SPDX-License-Identifier: Apache-2.0
"""The closed list of parameter types: how each is written, what it is in Python, how it is packed for BPF.

=========== ============================ ============================ ==================================
type        written                      in Python                    packed into
=========== ============================ ============================ ==================================
int         ``5``, ``-1``, ``0x1f``      int                          any integer member
bool        ``true``, ``false``          bool                         any integer member, 1 or 0
rate        ``10mbit``, ``5kbps``        int, bytes per second        integer, bytes per second
size        ``64k``, ``1500b``           int, bytes                   integer, bytes
time        ``20ms``                     int, nanoseconds             integer, in the manifest's unit
percent     ``5%``, ``0.1%``             int, parts per million       integer, parts per million
ipaddr      ``10.0.0.1``, ``fd00::1``    IPv4Address or IPv6Address   16 bytes, IPv4 as ::ffff:a.b.c.d
prefix      ``10.0.0.0/8``               IPv4Network or IPv6Network   16 bytes and u32 bits of 128
port        ``443``                      int                          u16, host byte order
dev         ``eth0``                     str                          u32, the ifindex
flags       ``syn``, ``[rtt, bytes]``    tuple of names               integer, one bit or more per name
string(n)   ``'text'``                   str, n bytes at most         char[], rest zero
list(n)     ``[1, 2]``                   tuple, n items at most       array, rest zero
chain       ``slow``                     str                          integer, 1 for the table's first chain
=========== ============================ ============================ ==================================

Rates, sizes and times are written as in tc(8): ``k`` of a size is 1024, ``kbit`` of a rate is 1000 bits per
second, ``kbps`` is 1000 bytes per second. Unlike in tc, a rate, a time or a percentage needs its unit.
"""

from __future__ import annotations

import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

from emptcp.errors import EmptcpError, did_you_mean, quoted
from emptcp.policy.model import Argument, Listing, Scalar
from emptcp.policy.tokens import DECLARED_NAME

Devices = Callable[[str], int]
"""Tells the ifindex of a device of the namespace in question."""


@dataclass(frozen=True, slots=True)
class Field:
    """A member of a parameter struct, as BTF describes it: bytes from its start, bytes of one item, items."""

    offset: int
    size: int
    count: int = 1
    signed: bool = False

    @property
    def bytes(self) -> int:
        """Bytes of the whole member."""
        return self.size * self.count


class ValueType(ABC):
    """A parameter's type. ``kind`` is its name; ``example`` shows how a value is written."""

    kind: str = ""
    example: str = ""
    in_maps: bool = False
    """Whether the values of a map can be of this type."""

    @property
    def meaning(self) -> str:
        """What has to be the same where two parameters read one packed value."""
        return self.kind

    def unpack(self, packed: bytes, field: Field) -> Any:
        """Return the value that :meth:`pack` packed; only for types with ``in_maps``."""
        raise NotImplementedError(self.kind)

    @abstractmethod
    def parse(self, text: str) -> Any:
        """Return the value that ``text`` says. Raises :class:`EmptcpError`."""

    def format(self, value: Any) -> str:
        """Return ``value`` as :meth:`parse` reads it."""
        return str(value)

    @abstractmethod
    def pack(self, value: Any, field: Field, devices: Devices) -> bytes:
        """Return exactly ``field.bytes`` bytes. Raises :class:`EmptcpError` when the value does not fit."""

    def misfit(self, field: Field) -> str:
        """Return why a value can't be packed into such a member, or an empty string."""
        whole = field.count == 1 and field.size in (1, 2, 4, 8)
        return "" if whole else f"an integer is needed for type {self.kind}"

    def read(self, argument: Argument) -> Any:
        """Return the value of an argument of a stage. Raises :class:`EmptcpError`."""
        if isinstance(argument, Scalar):
            return self.parse(argument.text)
        if isinstance(argument, Listing):
            return self.read_items(argument.items)
        sentence = f"a {self.kind} can't be read from a map"
        raise EmptcpError(sentence, fix=f"Write one value, as in {self.example}.")

    def read_items(self, items: Sequence[Scalar]) -> Any:
        """Return the value that several items make; most types take just one."""
        raise EmptcpError(f"a list is no {self.kind}", fix=f"Write one value, as in {self.example}.")

    def _no(self, text: str) -> EmptcpError:
        return EmptcpError(f"{quoted(text)} is no {self.kind}", fix=f"Write it as in {self.example}.")


class _Whole(ValueType):
    """Types whose value is a whole number."""

    in_maps = True

    def of_number(self, number: int) -> Any:
        """Return the value that ``number`` stands for."""
        return number

    def unpack(self, packed: bytes, field: Field) -> Any:
        return self.of_number(int.from_bytes(packed, sys.byteorder, signed=field.signed))

    def number(self, value: Any) -> int:
        """Return the number that stands for ``value``."""
        return int(value)

    def pack(self, value: Any, field: Field, devices: Devices) -> bytes:
        try:
            return self.number(value).to_bytes(field.size, sys.byteorder, signed=field.signed)
        except OverflowError:
            sentence = f"{quoted(self.format(value))} does not fit into {field.size * 8} bits"
            raise EmptcpError(sentence, fix="Write a smaller value.") from None


class Int(_Whole):
    """A whole number; with ``names`` one of these, each standing for a number."""

    kind, example = "int", "5"
    _pattern = re.compile(r"[+-]?(?:0[xX][0-9A-Fa-f]{1,16}|[0-9]{1,20})")

    def __init__(self, names: Mapping[str, int] | None = None) -> None:
        self.names = dict(names or {})
        self.example = next(iter(self.names), self.example)

    def parse(self, text: str) -> int:
        if self.names:
            return self._named(text)
        if not self._pattern.fullmatch(text):
            raise self._no(text)
        return int(text, 16 if "x" in text.lower() else 10)

    def _named(self, text: str) -> int:
        if text not in self.names:
            fix = did_you_mean(text, self.names) or f"Write one of {', '.join(self.names)}."
            raise EmptcpError(f"{quoted(text)} is none of its values", fix=fix)
        return self.names[text]

    @property
    def meaning(self) -> str:
        return f"int {sorted(self.names.items())}"

    def format(self, value: int) -> str:
        return next((name for name, number in self.names.items() if number == value), str(value))


class Bool(_Whole):
    """True or false."""

    kind, example = "bool", "true"

    def parse(self, text: str) -> bool:
        if text.lower() not in ("true", "false"):
            raise self._no(text)
        return text.lower() == "true"

    def of_number(self, number: int) -> bool:
        return bool(number)

    def format(self, value: bool) -> str:
        return "true" if value else "false"


class _Measured(_Whole):
    """A number with a unit. ``units`` tells how much one of each is, in what the value counts."""

    units: ClassVar[Mapping[str, Fraction | int]]
    bare: str | None = None
    """The unit of a number without one; ``None``: a unit must stand there, but for 0."""
    shown: Sequence[str]
    """Units that :meth:`format` uses, from large to small; the last one counts ones."""

    _pattern = re.compile(r"(?P<number>[0-9]{1,20}(?:\.[0-9]{1,12})?)(?P<unit>%|[A-Za-z]*)")

    def parse(self, text: str) -> int:
        match = self._pattern.fullmatch(text)
        if match is None:
            raise self._no(text)
        number, unit = Fraction(match["number"]), match["unit"].lower()
        if not unit and (self.bare is not None or number == 0):
            return int(number * self.units[self.bare or self.shown[0]])
        if unit not in self.units:
            raise self._unknown_unit(text, match["unit"])
        value = int(number * self.units[unit])
        if number and not value:
            raise EmptcpError(f"{quoted(text)} is too small to be a {self.kind}", fix="Write a larger value.")
        return value

    def _unknown_unit(self, text: str, unit: str) -> EmptcpError:
        fix = did_you_mean(unit.lower(), self.units) if unit else ""
        problem = f"has no unit {quoted(unit)} that a {self.kind} knows" if unit else "lacks its unit"
        return EmptcpError(f"{quoted(text)} {problem}", fix=fix or f"Write it as in {self.example}.")

    def format(self, value: int) -> str:
        unit = next(unit for unit in self.shown if value % self.units[unit] == 0)
        return f"{int(value // self.units[unit])}{unit}"


def _rate_units() -> dict[str, Fraction | int]:
    steps = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
    steps |= {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
    bits: dict[str, Fraction | int] = {f"{step}bit": Fraction(factor, 8) for step, factor in steps.items()}
    return bits | {f"{step}bps": factor for step, factor in steps.items()}


class Rate(_Measured):
    """Bytes per second; see tc(8), RATES."""

    kind, example = "rate", "10mbit or 5kbps"
    units = _rate_units()
    shown = ("tbit", "gbit", "mbit", "kbit", "bps")

    def __init__(self, unit: str = "") -> None:
        self._scale = 8 if unit == "bit" else 1

    @property
    def meaning(self) -> str:
        return f"rate {self._scale}"

    def number(self, value: int) -> int:
        return value * self._scale

    def of_number(self, number: int) -> int:
        return number // self._scale


class Size(_Measured):
    """Bytes; see tc(8), SIZES. A number without a unit counts bytes."""

    kind, example = "size", "64k or 1500b"
    units: ClassVar = {
        **{"b": 1, "k": 2**10, "kb": 2**10, "m": 2**20, "mb": 2**20, "g": 2**30, "gb": 2**30},
        **{"kbit": 2**7, "mbit": 2**17, "gbit": 2**27},
    }
    bare = "b"
    shown = ("g", "m", "k", "b")


class Time(_Measured):
    """Nanoseconds; see tc(8), TIMES, with minutes and hours beside."""

    kind, example = "time", "20ms or 5s"
    units: ClassVar = {
        **{"ns": 1, "nsec": 1, "nsecs": 1, "us": 10**3, "usec": 10**3, "usecs": 10**3},
        **{"ms": 10**6, "msec": 10**6, "msecs": 10**6, "s": 10**9, "sec": 10**9, "secs": 10**9},
        **{"min": 60 * 10**9, "h": 3600 * 10**9},
    }
    shown = ("h", "min", "s", "ms", "us", "ns")

    def __init__(self, unit: str = "") -> None:
        self._scale = self.units[unit or "ns"]

    @property
    def meaning(self) -> str:
        return f"time {self._scale}"

    def number(self, value: int) -> int:
        return int(value // self._scale)

    def of_number(self, number: int) -> int:
        return int(number * self._scale)


class Percent(_Measured):
    """Parts per million."""

    kind, example = "percent", "5%"
    units: ClassVar = {"%": 10_000}
    shown = ("%",)

    def parse(self, text: str) -> int:
        value = super().parse(text)
        if value > 1_000_000:
            raise EmptcpError(f"{quoted(text)} is over 100%", fix="Write 0% to 100%.")
        return value

    def format(self, value: int) -> str:
        return f"{value / 10_000:.4f}".rstrip("0").rstrip(".") + "%"


class Port(_Whole):
    """A TCP port, 1 to 65535."""

    kind, example = "port", "443"
    _written = re.compile(r"[0-9]{1,5}")

    def parse(self, text: str) -> int:
        if not self._written.fullmatch(text) or not 0 < int(text) < 65536:
            fix = "Write a number from 1 to 65535, as in 443."
            raise EmptcpError(f"{quoted(text)} is no port", fix=fix)
        return int(text)


class Flags(_Whole):
    """A set of names, each standing for one bit or several."""

    kind = "flags"

    def __init__(self, names: Mapping[str, int]) -> None:
        """``names`` maps each name to its mask."""
        self.names = dict(names)
        self.example = next(iter(self.names), "name")

    def parse(self, text: str) -> tuple[str, ...]:
        return self._of(re.split(r"[|,]", text))

    def read_items(self, items: Sequence[Scalar]) -> tuple[str, ...]:
        return self._of([item.text for item in items])

    def _of(self, words: Sequence[str]) -> tuple[str, ...]:
        for word in words:
            if word.strip() not in self.names:
                fix = did_you_mean(word.strip(), self.names) or f"Write some of {', '.join(self.names)}."
                raise EmptcpError(f"{quoted(word)} is none of its values", fix=fix)
        return tuple(dict.fromkeys(word.strip() for word in words))

    @property
    def meaning(self) -> str:
        return f"flags {sorted(self.names.items())}"

    def of_number(self, number: int) -> tuple[str, ...]:
        found: list[str] = []
        for name, mask in self.names.items():
            if mask & number == mask and mask & ~self.number(found):
                found.append(name)
        return tuple(found)

    def number(self, value: Sequence[str]) -> int:
        mask = 0
        for name in value:
            mask |= self.names[name]
        return mask

    def format(self, value: Sequence[str]) -> str:
        return "|".join(value)


class IpAddress(ValueType):
    """An IPv4 or IPv6 address."""

    kind, example = "ipaddr", "10.0.0.1 or fd00::1"

    def parse(self, text: str) -> Any:
        import ipaddress

        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            raise self._no(text) from None
        if getattr(address, "scope_id", None):
            raise EmptcpError(f"{quoted(text)} has a scope", fix="Write the address without '%..'.")
        return address

    def pack(self, value: Any, field: Field, devices: Devices) -> bytes:
        return mapped(value)

    def misfit(self, field: Field) -> str:
        return "" if field.bytes == 16 else "struct emptcp_address (16 bytes) is needed for type ipaddr"


class Prefix(ValueType):
    """An IPv4 or IPv6 network; an address alone is a network of one."""

    kind, example = "prefix", "10.0.0.0/8, fd00::/8 or one address"

    def parse(self, text: str) -> Any:
        import ipaddress

        if "%" in text:
            raise self._no(text)
        try:
            network = ipaddress.ip_network(text, strict=False)
            ipaddress.ip_network(text)
        except ipaddress.NetmaskValueError:
            raise self._no(text) from None
        except ValueError as error:
            if "host bits" not in str(error):
                raise self._no(text) from None
            fix = f"did you mean '{network}'?"
            raise EmptcpError(f"{quoted(text)} has bits behind its prefix length", fix=fix) from None
        return network

    def pack(self, value: Any, field: Field, devices: Devices) -> bytes:
        bits = value.prefixlen + (96 if value.version == 4 else 0)
        return mapped(value.network_address) + int(bits).to_bytes(4, sys.byteorder)

    def misfit(self, field: Field) -> str:
        return "" if field.bytes == 20 else "struct emptcp_prefix (20 bytes) is needed for type prefix"


class Device(ValueType):
    """A device of the policy's namespace."""

    kind, example = "dev", "eth0"

    def parse(self, text: str) -> str:
        if not re.fullmatch(r"[^\s/:]{1,15}", text):
            raise self._no(text)
        return text

    def pack(self, value: str, field: Field, devices: Devices) -> bytes:
        return devices(value).to_bytes(field.size, sys.byteorder)

    def misfit(self, field: Field) -> str:
        return "" if (field.size, field.count) == (4, 1) else "an integer of 4 bytes is needed for type dev"


class String(ValueType):
    """Text of at most ``length`` bytes in UTF-8."""

    kind, example = "string", "'text'"

    def __init__(self, length: int) -> None:
        self.length = length

    def parse(self, text: str) -> str:
        size = len(text.encode("utf-8", "surrogatepass"))
        if size > self.length:
            raise EmptcpError(f"{quoted(text)} has {size} bytes", fix=f"Write at most {self.length}.")
        if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text):
            raise self._no(text)
        return text

    def pack(self, value: str, field: Field, devices: Devices) -> bytes:
        return value.encode().ljust(field.bytes, b"\0")

    def misfit(self, field: Field) -> str:
        fits = field.size == 1 and field.count >= self.length
        return "" if fits else f"char[{self.length}] or more is needed for type string({self.length})"


class List(ValueType):
    """Up to ``length`` values of one type."""

    kind = "list"

    def __init__(self, length: int, of: ValueType) -> None:
        self.length = length
        self.of = of
        self.example = f"[{of.example}]"

    def parse(self, text: str) -> tuple[Any, ...]:
        return self.read_items([Scalar(text)])

    def read_items(self, items: Sequence[Scalar]) -> tuple[Any, ...]:
        if len(items) > self.length:
            raise EmptcpError(f"{len(items)} values are too many", fix=f"Write at most {self.length}.")
        return tuple(self.of.parse(item.text) for item in items)

    def format(self, value: Sequence[Any]) -> str:
        return "[" + ", ".join(self.of.format(item) for item in value) + "]"

    def pack(self, value: Sequence[Any], field: Field, devices: Devices) -> bytes:
        one = Field(0, field.size, 1, field.signed)
        return b"".join(self.of.pack(item, one, devices) for item in value).ljust(field.bytes, b"\0")

    def misfit(self, field: Field) -> str:
        if field.count < self.length:
            return f"an array of {self.length} is needed for type list({self.length})"
        return self.of.misfit(Field(0, field.size, 1, field.signed))


class ChainName(ValueType):
    """The name of a chain of the same table. Fragments are given its number, which is the table's to tell."""

    kind, example = "chain", "a name that the file declares"

    def parse(self, text: str) -> str:
        if not DECLARED_NAME.fullmatch(text):
            raise self._no(text)
        return text

    def pack(self, value: str, field: Field, devices: Devices) -> bytes:
        return bytes(field.bytes)


_PLAIN: Mapping[str, Callable[[], ValueType]] = {
    "int": Int,
    "bool": Bool,
    "rate": Rate,
    "size": Size,
    "time": Time,
    "percent": Percent,
    "ipaddr": IpAddress,
    "prefix": Prefix,
    "port": Port,
    "dev": Device,
    "chain": ChainName,
}
TYPES = (*_PLAIN, "flags", "string(n)", "list(n)")
"""Every type, as a manifest writes it."""

_SIZED = re.compile(r"(string|list)\(([0-9]{1,4})\)")


def of(text: str, *, names: Mapping[str, int] | None = None, unit: str = "", item: str = "int") -> ValueType:
    """Return the type that a manifest or a policy file names.

    ``names`` are the masks of ``flags`` or the values of a named ``int``; ``unit`` is what a packed time
    (``ns``, ``us``, ``ms``, ``s``) or rate (``byte``, ``bit``) counts; ``item`` is the type within a list.
    Raises :class:`EmptcpError` for a type that is not on the list.
    """
    sized = _SIZED.fullmatch(text)
    if sized and not 0 < int(sized[2]) <= 256:
        raise EmptcpError(f"{quoted(text)} has an impossible length", fix="Write 1 to 256.")
    if sized:
        length = int(sized[2])
        return String(length) if sized[1] == "string" else List(length, of(item, names=names, unit=unit))
    if text == "flags":
        return Flags(names or {})
    if text == "int":
        return Int(names)
    if text in ("rate", "time") and unit:
        return _with_unit(text, unit)
    if text not in _PLAIN:
        fix = did_you_mean(text, TYPES) or f"Write one of {', '.join(TYPES)}."
        raise EmptcpError(f"{quoted(text)} is no type of a parameter", fix=fix)
    return _PLAIN[text]()


def _with_unit(kind: str, unit: str) -> ValueType:
    units = ("ns", "us", "ms", "s") if kind == "time" else ("byte", "bit")
    if unit not in units:
        fix = f"Write one of {', '.join(units)}."
        raise EmptcpError(f"{quoted(unit)} is no unit of a packed {kind}", fix=fix)
    return Time(unit) if kind == "time" else Rate(unit)


def no_devices(name: str) -> int:
    """Know no device: for places where parameters are checked without a namespace."""
    raise EmptcpError(f"there is no device {quoted(name)}", fix="See 'ip link'.")


def any_device(name: str) -> int:
    """Take every device for there: for places where its index does not matter."""
    return 0


def mapped(address: Any) -> bytes:
    """Return 16 bytes of an address, IPv4 as ::ffff:a.b.c.d, as struct emptcp_key has it."""
    packed: bytes = address.packed
    return packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed


__all__ = ["TYPES", "Argument", "Devices", "Field", "ValueType", "any_device", "no_devices", "of"]
