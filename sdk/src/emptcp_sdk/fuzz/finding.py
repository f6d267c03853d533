# SPDX-License-Identifier: Apache-2.0
"""Make a packet that fails small, print it as a test case, and keep it in a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from emptcp_sdk.fuzz.mutations import SHORTEST, repaired
from emptcp_sdk.fuzz.packets import Packet

TRIES = 3000


def folder() -> Path:
    """Return where findings are written: ``EMPTCP_FUZZ_FINDINGS``, or ``fuzz-findings`` here."""
    return Path(os.environ.get("EMPTCP_FUZZ_FINDINGS") or "fuzz-findings")


def minimised(packet: Packet, fails: Callable[[Packet], bool]) -> Packet:
    """Return a smaller packet that fails too: runs of bytes are left out, then bytes become zero.

    Lengths in the headers go along when the checksums are made anew; what no longer fails is taken back.
    """
    tries = 0

    def still(data: bytes) -> Packet | None:
        nonlocal tries
        tries += 1
        if len(data) < SHORTEST or tries > TRIES:
            return None
        one = replace(packet, data=data)
        return next((p for p in (repaired(one), one) if fails(p)), None)

    size = len(packet.data) // 2
    while size:
        for at in range(len(packet.data) - size, -1, -size):
            packet = still(packet.data[:at] + packet.data[at + size :]) or packet
        size //= 2
    for at in range(len(packet.data)):
        if packet.data[at : at + 1] not in (b"\0", b""):
            packet = still(packet.data[:at] + b"\0" + packet.data[at + 1 :]) or packet
    return packet


def report(what: str, packet: Packet, how: str, seed: int) -> str:
    """Write the finding to a file, and return the text: a test case to paste."""
    data = "\n".join(f'    "{packet.data.hex()[n : n + 96]}"' for n in range(0, len(packet.data) * 2, 96))
    text = (
        f"# {what}\n# seed {seed}\nPACKET = bytes.fromhex(\n{data}\n)\nLINK = {packet.link!r}\nHOW = {how}\n"
    )
    into = folder()
    into.mkdir(parents=True, exist_ok=True)
    name = sha256(text.encode()).hexdigest()[:12]
    (into / f"{name}.py").write_text(text, encoding="utf-8")
    return f"{what}; written to {into / name}.py\n{text}"
