# SPDX-License-Identifier: Apache-2.0
"""A kernel object held by a file descriptor: closing, information, ids, pins."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from emptcp.pybpf.errors import BpfError, failed
from emptcp.pybpf.libbpf import library

BPF_FS_MAGIC = 0xCAFE4A11


class Descriptor:
    """Owns one file descriptor. A context manager; closing twice is harmless.

    One that is forgotten is closed with a ResourceWarning: when Python comes to it, the kernel has kept the
    object, and its memory, for as long.
    """

    what = "object"

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def fd(self) -> int:
        """The file descriptor.

        :raises BpfError: it was closed.
        """
        self._must_be_open()
        return self._fd

    def _must_be_open(self) -> None:
        if self._fd < 0:
            raise BpfError(f"this {self.what} was closed")

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._fd < 0

    def close(self) -> None:
        """Give up the descriptor.

        The kernel frees the object with its last descriptor, pin and attachment.
        """
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        if self._fd >= 0:
            _warn(f"unclosed {self.what}, descriptor {self._fd}", ResourceWarning, stacklevel=2, source=self)
            self.close()

    def pin(self, path: str | os.PathLike[str]) -> None:
        """Pin the object to a path that must lie on a bpffs and not exist yet.

        :raises BpfError: no bpffs, no such folder, or something is there.
        """
        pin(self.fd, os.fspath(path), self.what)

    @classmethod
    def from_pin(cls, path: str | os.PathLike[str]) -> Self:
        """Open a pinned object.

        :raises BpfError: nothing is pinned there, or it is of another kind.
        """
        return cls(_checked(cls.what, open_pin(os.fspath(path), cls.what), os.fspath(path)))


def pin(fd: int, path: str, what: str) -> None:
    """Pin a descriptor to a path on bpffs."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise BpfError(
            f"cannot pin the {what} to {path}: {folder} is no folder", fix="Create the folder first."
        )
    if not is_bpffs(folder):
        raise BpfError(
            f"cannot pin the {what} to {path}: {folder} is not on a BPF file system",
            fix="Mount one: mount -t bpf bpf /sys/fs/bpf",
        )
    code = library().function("bpf_obj_pin")(fd, path.encode())
    if code < 0:
        raise failed(f"cannot pin the {what} to {path}", code)


def open_pin(path: str, what: str) -> int:
    """Return a descriptor of what is pinned at a path."""
    fd = int(library().function("bpf_obj_get")(path.encode()))
    if fd < 0:
        raise failed(f"cannot open the pinned {what} {path}", fd)
    return fd


def is_bpffs(path: str | Path) -> bool:
    """Return whether a path lies on a BPF file system."""
    found = library().ffi.new("struct file_system *")
    done = library().libc.statfs(os.fsencode(path), found)
    return bool(done == 0 and (found.f_type & 0xFFFFFFFF) == BPF_FS_MAGIC)


def information(fd: int, struct: str, what: str) -> Any:
    """Return the kernel's information struct about a descriptor (``bpf_obj_get_info_by_fd``)."""
    opened = library()
    info = opened.ffi.new(f"struct {struct} *")
    return fill_information(fd, info, what)


def fill_information(fd: int, info: Any, what: str) -> Any:
    """Let the kernel fill an information struct that may already carry pointers to room for arrays."""
    opened = library()
    size = opened.ffi.new("uint32_t *", opened.ffi.sizeof(opened.ffi.typeof(info).item))
    code = opened.function("bpf_obj_get_info_by_fd")(fd, info, size)
    if code < 0:
        raise failed(f"the kernel tells nothing about this {what}", code)
    return info


def by_id(function: str, number: int, what: str) -> int:
    """Return a descriptor of the object with this id."""
    fd = int(library().function(function)(number))
    if fd < 0:
        raise failed(f"cannot open the {what} with id {number}", fd)
    return fd


def ids(function: str) -> list[int]:
    """Return the ids of all objects that a ``bpf_*_get_next_id`` function lists, at most 65536."""
    opened = library()
    following = opened.ffi.new("uint32_t *", 0)
    found: list[int] = []
    while len(found) < 65536 and opened.function(function)(following[0], following) == 0:
        found.append(int(following[0]))
    return found


def _checked(what: str, fd: int, path: str) -> int:
    """Return the descriptor if it is of the kind, by what its link in /proc says; else close it."""
    label = os.readlink(f"/proc/self/fd/{fd}")
    expected = {"map": "bpf-map", "program": "bpf-prog", "link": "bpf"}.get(what, "")
    if expected in label and not (what == "link" and ("bpf-map" in label or "bpf-prog" in label)):
        return fd
    os.close(fd)
    raise BpfError(f"what is pinned at {path} is no {what} ({label})")
