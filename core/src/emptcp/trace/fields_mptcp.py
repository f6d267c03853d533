# SPDX-License-Identifier: Apache-2.0
"""The fields that tshark shows for an MPTCP option, right or wrong."""

from __future__ import annotations

from collections.abc import Callable

from emptcp.trace.view import View

_MPTCP = "tcp.options.mptcp"


def mptcp(view: View) -> None:
    """Add the fields of one option of kind 30, behind its kind and length."""
    first = view.number(2, 1)
    view.put(f"{_MPTCP}.subtype", first >> 4)
    show = _SUBTYPES.get(first >> 4)
    if show:
        show(view)


def _capable(view: View) -> None:
    version = view.number(2, 1) & 0xF
    view.put(f"{_MPTCP}.version", version)
    flags = view.hexadecimal(f"{_MPTCP}.flags", 3, 1)
    hash_name = "sha256" if version == 1 else "sha1"
    names = {"checksumreq.flags": 0x80, "extensibility.flag": 0x40}
    if version == 1:
        names["nomoresubflows.flag"] = 0x20
    view.bits(flags, {f"{_MPTCP}.{name}": bit for name, bit in (names | {f"{hash_name}.flag": 1}).items()})
    reserved = flags & (0x1E if version == 1 else 0x3E)
    view.put(f"{_MPTCP}.reserved.flag", f"0x{reserved >> 1:02x}")
    if view.size in (12, 20, 22, 24):
        _keys(view)


def _keys(view: View) -> None:
    view.decimal(f"{_MPTCP}.sendkey", 4, 8)
    if view.size >= 20:
        view.decimal(f"{_MPTCP}.recvkey", 12, 8)
    if view.size >= 22:
        view.decimal(f"{_MPTCP}.datalvllen", 20, 2)
    if view.size == 24:
        view.hexadecimal(f"{_MPTCP}.checksum", 22, 2)


def _backup(view: View) -> None:
    flags = view.hexadecimal(f"{_MPTCP}.flags", 2, 1)
    view.put(f"{_MPTCP}.backup.flag", flags & 1)


def _join(view: View) -> None:
    size = view.size
    if size in (12, 16):
        _backup(view)
        view.decimal(f"{_MPTCP}.addrid", 3, 1)
    if size == 12:
        view.decimal(f"{_MPTCP}.recvtok", 4, 4)
    elif size == 16:
        view.decimal(f"{_MPTCP}.sendtrunchmac", 4, 8)
    if size in (12, 16):
        view.decimal(f"{_MPTCP}.sendrand", size - 4, 4)
    elif size == 24:
        view.hexadecimal(f"{_MPTCP}.reserved", 2, 2, 0xFFF)
        view.plain(f"{_MPTCP}.sendhmac", 4, 20)


_DSS_FLAGS = {
    f"{_MPTCP}.datafin.flag": 0x10,
    f"{_MPTCP}.dseqn8.flag": 0x08,
    f"{_MPTCP}.dseqnpresent.flag": 0x04,
    f"{_MPTCP}.dataack8.flag": 0x02,
    f"{_MPTCP}.dataackpresent.flag": 0x01,
}


def _dss(view: View) -> None:
    flags = view.hexadecimal(f"{_MPTCP}.flags", 3, 1)
    view.bits(flags, _DSS_FLAGS)
    at = 4
    if flags & 0x01:
        size = 8 if flags & 0x02 else 4
        view.decimal(f"{_MPTCP}.rawdataack", at, size)
        at += size
    if flags & 0x04:
        size = 8 if flags & 0x08 else 4
        view.decimal(f"{_MPTCP}.rawdataseqno", at, size)
        view.decimal(f"{_MPTCP}.subflowseqno", at + size, 4)
        view.decimal(f"{_MPTCP}.datalvllen", at + size + 4, 2)
        at += size + 6
        # Two bytes would be enough for it, but tshark 4.0 asks for four, and so shows none.
        if view.size >= at + 4:
            view.hexadecimal(f"{_MPTCP}.checksum", at, 2)


def _add_address(view: View) -> None:
    nibble, size = view.number(2, 1) & 0xF, view.size
    view.put(*((f"{_MPTCP}.ipver", nibble) if nibble in (4, 6) else (f"{_MPTCP}.echo", nibble & 1)))
    view.decimal(f"{_MPTCP}.addrid", 3, 1)
    at = 4
    if size in (8, 10, 16, 18):
        view.address(f"{_MPTCP}.ipv4", 4, 4)
        at = 8
    elif size in (20, 22, 28, 30):
        view.address(f"{_MPTCP}.ipv6", 4, 16)
        at = 20
    if size in (10, 18, 22, 30):
        view.decimal(f"{_MPTCP}.port", at, 2)
    if size in (16, 18, 28, 30):
        view.decimal(f"{_MPTCP}.addaddrtrunchmac", size - 8, 8)


def _remove_address(view: View) -> None:
    for at in range(3, view.size):
        view.decimal(f"{_MPTCP}.addrid", at, 1)


def _prio(view: View) -> None:
    _backup(view)
    if view.size == 4:
        view.decimal(f"{_MPTCP}.addrid", 3, 1)


def _fail(view: View) -> None:
    view.hexadecimal(f"{_MPTCP}.reserved", 2, 2, 0xFFF)
    view.decimal(f"{_MPTCP}.rawdataseqno", 4, 8)


def _fastclose(view: View) -> None:
    view.hexadecimal(f"{_MPTCP}.reserved", 2, 2, 0xFFF)
    view.decimal(f"{_MPTCP}.recvkey", 4, 8)


_RESET_FLAGS = {f"{_MPTCP}.flag_{name}.flag": 1 << bit for bit, name in enumerate("TWVU")}


def _reset(view: View) -> None:
    flags = view.hexadecimal(f"{_MPTCP}.flags", 2, 1)
    view.bits(flags, dict(reversed(_RESET_FLAGS.items())))
    view.hexadecimal(f"{_MPTCP}.rst_reason", 3, 1)


_SUBTYPES: dict[int, Callable[[View], None]] = dict(
    enumerate((_capable, _join, _dss, _add_address, _remove_address, _prio, _fail, _fastclose, _reset))
)
