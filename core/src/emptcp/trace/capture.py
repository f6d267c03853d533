# SPDX-License-Identifier: Apache-2.0
"""Read and write captures: pcap and pcapng, either byte order, micro- and nanoseconds.

Formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng. A writer continues what the reader saw: the
same format, byte order, interfaces, link types and time stamps, so that only packets differ. Comments
and other annotations of pcapng packets are not carried over. (python-pcapng reads no pcap; dpkt tells
neither where a cut file ends nor several sections apart. Hence these pages.)
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO, Literal

from emptcp.errors import EmptcpError

LIMIT = 16 * 1024 * 1024
"""No packet or block is longer than this; a file that says so is damaged."""

GROWTH = 40
"""What a chain can add to a packet at most: a whole TCP option space."""

_PCAP_MAGIC = {0xA1B2C3D4: 10**6, 0xA1B23C4D: 10**9}
_SECTION = b"\x0a\x0d\x0d\x0a"
_BYTE_ORDER_MAGIC = 0x1A2B3C4D
_INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _ENHANCED_PACKET = 1, 2, 3, 6
_OPTION_END, _OPTION_RESOLUTION, _OPTION_TIME_OFFSET = 0, 9, 14


@dataclass(frozen=True, slots=True)
class Interface:
    """Where packets came from: link type (LINKTYPE_ value), longest capture (0: any), ticks per second.

    ``header`` is its description as in the file: the pcap header, or an interface block's body.
    """

    index: int
    link_type: int
    snaplen: int
    ticks_per_second: int
    seconds_offset: int
    header: bytes = field(repr=False)


@dataclass(eq=False)
class Section:
    """A pcap file, or one section of a pcapng file, with the interfaces declared so far."""

    format: Literal["pcap", "pcapng"]
    order: Literal["<", ">"]
    header: bytes = field(repr=False)
    interfaces: list[Interface] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class CapturedPacket:
    """A packet as captured; ``n`` counts from 1 through the file.

    ``ticks`` is its time in the interface's unit, None where the file has none (simple packet blocks).
    ``original_length`` is how long it was on the wire.
    """

    n: int
    ticks: int | None
    data: bytes
    original_length: int
    interface: Interface
    section: Section

    @property
    def link_type(self) -> int:
        """LINKTYPE_ value of its interface."""
        return self.interface.link_type

    @property
    def truncated(self) -> bool:
        """Whether bytes of it are missing in the capture."""
        return len(self.data) < self.original_length

    @property
    def time_ns(self) -> int:
        """Nanoseconds since 1970, rounded down."""
        seconds = self.interface.seconds_offset * 10**9
        return seconds + (self.ticks or 0) * 10**9 // self.interface.ticks_per_second


class Capture:
    """An open capture: iterate over it once for its packets.

    Raises EmptcpError for a file that can't be read or is no capture, and, after the whole packets were
    given, for one that is cut or damaged: naming the file, the packet and the rule.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.packets = 0
        self._file = _opened(self.path, "rb")
        try:
            self.section = self._first_section()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Capture:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[CapturedPacket]:
        return self._pcap_packets() if self.section.format == "pcap" else self._pcapng_packets()

    def _first_section(self) -> Section:
        magic = self._file.read(4)
        if magic == _SECTION:
            return self._section_block()
        for order in ("<", ">"):
            ticks = _PCAP_MAGIC.get(int.from_bytes(magic, "little" if order == "<" else "big"))
            if ticks and len(magic) == 4:
                return self._pcap_header(magic, order, ticks)
        raise self._no_capture(magic)

    def _no_capture(self, magic: bytes) -> EmptcpError:
        if not magic:
            return EmptcpError(f"capture '{self.path}' is empty", fix="capture again")
        if magic[:2] == b"\x1f\x8b":
            return EmptcpError(
                f"capture '{self.path}' is compressed", fix=f"unpack it first: gunzip -k '{self.path}'"
            )
        return EmptcpError(
            f"'{self.path}' is neither a pcap nor a pcapng capture",
            fix="convert it: editcap FILE OUT.pcap",
        )

    def _cut(self, what: str, wanted: int, got: int) -> EmptcpError:
        whole = (
            f"what is before it is whole ({self.packets} packets)" if self.packets else "no packet is whole"
        )
        return EmptcpError(
            f"capture '{self.path}' is cut: {what} should have {wanted} more bytes, the file has {got}",
            fix=f"{whole}; capture again, or drop the rest: editcap '{self.path}' OUT.pcap",
        )

    def _damaged(self, rule: str) -> EmptcpError:
        keep = f", or keep what is before it: editcap -r '{self.path}' OUT.pcap 1-{self.packets}"
        return EmptcpError(
            f"capture '{self.path}' is damaged at packet {self.packets + 1}: {rule}",
            fix="capture again" + (keep if self.packets else ""),
        )

    def _read(self, size: int, what: str) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise self._cut(what, size, len(data))
        return data

    # pcap

    def _pcap_header(self, magic: bytes, order: str, ticks: int) -> Section:
        header = magic + self._read(20, "the file header")
        snaplen, link = struct.unpack_from(f"{order}II", header, 16)
        section = Section("pcap", "<" if order == "<" else ">", header)
        # The upper half of the link type tells of frame check sequences.
        section.interfaces.append(Interface(0, link & 0xFFFF, snaplen, ticks, 0, header))
        return section

    def _pcap_packets(self) -> Iterator[CapturedPacket]:
        section, record = self.section, struct.Struct(f"{self.section.order}IIII")
        interface = section.interfaces[0]
        while head := self._file.read(16):
            what = f"packet {self.packets + 1}"
            if len(head) < 16:
                raise self._cut(f"the header of {what}", 16 - len(head), 0)
            seconds, fraction, size, original = record.unpack(head)
            if size > LIMIT:
                raise self._damaged(f"it claims {size} bytes, and none has more than {LIMIT}")
            data = self._read(size, what)
            self.packets += 1
            ticks = seconds * interface.ticks_per_second + fraction
            yield CapturedPacket(self.packets, ticks, data, max(original, size), interface, section)

    # pcapng

    def _section_block(self) -> Section:
        head = self._read(8, "a section header")
        for order in ("<", ">"):
            length, magic = struct.unpack(f"{order}II", head)
            if magic == _BYTE_ORDER_MAGIC:
                break
        else:
            raise self._damaged("its section has no byte order mark")
        if not 28 <= length <= LIMIT or length % 4:
            raise self._damaged(f"its section header claims {length} bytes")
        rest = self._read(length - 12, "a section header")
        return Section("pcapng", "<" if order == "<" else ">", _SECTION + head + rest)

    def _pcapng_packets(self) -> Iterator[CapturedPacket]:
        while head := self._file.read(4):
            if head == _SECTION:
                self.section = self._section_block()
                continue
            kind, body = self._block(head)
            if kind == _INTERFACE:
                self.section.interfaces.append(self._interface(body))
            elif kind in (_ENHANCED_PACKET, _SIMPLE_PACKET, _OLD_PACKET):
                packet = self._packet(kind, body)
                self.packets += 1
                yield packet

    def _block(self, head: bytes) -> tuple[int, bytes]:
        what = f"the block of packet {self.packets + 1}"
        if len(head) < 4:
            raise self._cut(what, 4 - len(head), 0)
        size = self._read(4, what)
        kind, length = struct.unpack(f"{self.section.order}II", head + size)
        if not 12 <= length <= LIMIT or length % 4:
            raise self._damaged(f"its block claims {length} bytes")
        body = self._read(length - 8, what)
        if body[-4:] != size:
            raise self._damaged("the lengths at its block's ends differ")
        return kind, body[:-4]

    def _interface(self, body: bytes) -> Interface:
        if len(body) < 8:
            raise self._damaged("an interface's block is too short")
        link, _, snaplen = struct.unpack_from(f"{self.section.order}HHI", body)
        options = dict(self._options(body[8:]))
        return Interface(
            index=len(self.section.interfaces),
            link_type=link,
            snaplen=snaplen,
            ticks_per_second=_ticks_per_second(options.get(_OPTION_RESOLUTION, b"\x06")),
            seconds_offset=self._signed(options.get(_OPTION_TIME_OFFSET, b"")),
            header=body,
        )

    def _signed(self, value: bytes) -> int:
        return int.from_bytes(value, "little" if self.section.order == "<" else "big", signed=True)

    def _options(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        at = 0
        while at + 4 <= len(data):
            code, length = struct.unpack_from(f"{self.section.order}HH", data, at)
            if code == _OPTION_END or at + 4 + length > len(data):
                return
            yield code, data[at + 4 : at + 4 + length]
            at += 4 + length + -length % 4

    def _packet(self, kind: int, body: bytes) -> CapturedPacket:
        if kind == _SIMPLE_PACKET:
            return self._simple_packet(body)
        layout = struct.Struct(self.section.order + ("IIIII" if kind == _ENHANCED_PACKET else "HxxIIII"))
        if len(body) < layout.size:
            raise self._damaged("its block is too short")
        index, high, low, size, original = layout.unpack_from(body)
        interface, data = self._declared(index), body[20 : 20 + size]
        if len(data) < size:
            raise self._damaged(f"it claims {size} bytes, its block holds {len(data)}")
        return CapturedPacket(
            self.packets + 1, high << 32 | low, data, max(original, size), interface, self.section
        )

    def _simple_packet(self, body: bytes) -> CapturedPacket:
        if len(body) < 4:
            raise self._damaged("its block is too short")
        interface = self._declared(0)
        (original,) = struct.unpack_from(f"{self.section.order}I", body)
        size = min(original, interface.snaplen or original, len(body) - 4)
        return CapturedPacket(self.packets + 1, None, body[4 : 4 + size], original, interface, self.section)

    def _declared(self, index: int) -> Interface:
        if index >= len(self.section.interfaces):
            count = len(self.section.interfaces)
            raise self._damaged(f"it names interface {index}, its section declares {count}")
        return self.section.interfaces[index]


def _ticks_per_second(option: bytes) -> int:
    value = option[0] if option else 6
    ticks: int = 2 ** (value & 0x7F) if value & 0x80 else 10**value
    return ticks


def _opened(path: str, mode: Literal["rb", "wb"]) -> BinaryIO:
    try:
        return open(path, mode)
    except OSError as error:
        verb = "read" if mode == "rb" else "written"
        raise EmptcpError(
            f"'{path}' can't be {verb}: {(error.strerror or str(error)).lower()}",
            fix="check the name and the rights",
        ) from error


def read(path: str | os.PathLike[str]) -> Iterator[CapturedPacket]:
    """Yield the packets of a capture; errors as in ``Capture``."""
    with Capture(path) as capture:
        yield from capture


class CaptureWriter:
    """A capture that continues another: the same format, byte order and interfaces.

    Raises EmptcpError when the file can't be written.
    """

    def __init__(self, path: str | os.PathLike[str], like: Section) -> None:
        self.path = os.fspath(path)
        self._file = _opened(self.path, "wb")
        self._section = like
        self._interfaces = 0
        self._begin(like)

    def __enter__(self) -> CaptureWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, packet: CapturedPacket, data: bytes | None = None) -> None:
        """Add a packet, with other bytes than it had if ``data`` is given."""
        if packet.section is not self._section:
            self._begin(packet.section)
        content = packet.data if data is None else data
        original = packet.original_length + len(content) - len(packet.data)
        if self._section.format == "pcap":
            self._pcap_record(packet, content, original)
        else:
            self._declare(packet.interface.index)
            self._packet_block(packet, content, original)

    def _begin(self, section: Section) -> None:
        self._section, self._interfaces = section, 0
        at = 16 if section.format == "pcap" else 0
        self._file.write(_grown(section.header, at, section.order) if at else _unsized(section.header))

    def _pcap_record(self, packet: CapturedPacket, data: bytes, original: int) -> None:
        seconds, fraction = divmod(packet.ticks or 0, packet.interface.ticks_per_second)
        self._file.write(
            struct.pack(f"{self._section.order}IIII", seconds, fraction, len(data), original) + data
        )

    def _declare(self, index: int) -> None:
        while self._interfaces <= index:
            header = self._section.interfaces[self._interfaces].header
            self._block(_INTERFACE, _grown(header, 4, self._section.order))
            self._interfaces += 1

    def _packet_block(self, packet: CapturedPacket, data: bytes, original: int) -> None:
        order, padding = self._section.order, bytes(-len(data) % 4)
        if packet.ticks is None:
            self._block(_SIMPLE_PACKET, struct.pack(f"{order}I", original) + data + padding)
            return
        head = struct.pack(
            f"{order}IIIII",
            packet.interface.index,
            packet.ticks >> 32,
            packet.ticks & 0xFFFFFFFF,
            len(data),
            original,
        )
        self._block(_ENHANCED_PACKET, head + data + padding)

    def _block(self, kind: int, body: bytes) -> None:
        length = len(body) + 12
        order = self._section.order
        self._file.write(struct.pack(f"{order}II", kind, length) + body + struct.pack(f"{order}I", length))


def _grown(header: bytes, at: int, order: str) -> bytes:
    """Raise the snapshot length at ``at``: readers cut packets to it, and a chain may have added options."""
    (snaplen,) = struct.unpack_from(f"{order}I", header, at)
    longer = snaplen + GROWTH if 0 < snaplen < 0xFFFF else snaplen
    return header[:at] + struct.pack(f"{order}I", longer) + header[at + 4 :]


def _unsized(header: bytes) -> bytes:
    """Take back what a section header says of its length: packets may be left out or longer."""
    return header[:16] + b"\xff" * 8 + header[24:]
