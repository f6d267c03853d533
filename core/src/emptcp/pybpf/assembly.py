# SPDX-License-Identifier: Apache-2.0
"""The few hand-written instructions that probes need.

The encoding is Documentation/bpf/standardization of the kernel.
"""

from __future__ import annotations

import struct


def instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """Return one instruction of 8 bytes."""
    return struct.pack("<BBhi", code, src << 4 | dst, offset, value)


def move(dst: int, value: int) -> bytes:
    """``dst = value`` (32 bits, sign-extended)."""
    return instruction(0xB7, dst, value=value)


def move_register(dst: int, src: int) -> bytes:
    """``dst = src``."""
    return instruction(0xBF, dst, src)


def call(helper: int) -> bytes:
    """Call a kernel helper by number."""
    return instruction(0x85, value=helper)


EXIT = instruction(0x95)


def answer(value: int) -> bytes:
    """A whole program: return a number."""
    return move(0, value) + EXIT
