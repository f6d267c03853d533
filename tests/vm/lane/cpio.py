# SPDX-License-Identifier: Apache-2.0
"""Pack files as the kernel wants its first file system: a cpio archive in the "newc" form.

Layout: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO

END = "TRAILER!!!"


class Archive:
    """An archive being written. Paths are absolute; each goes in once, its parents before it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.names: set[str] = set()

    def folder(self, path: Path) -> None:
        """Add a folder."""
        self._entry(path, stat.S_IFDIR | 0o755)

    def link(self, path: Path, target: str) -> None:
        """Add a symbolic link."""
        self._entry(path, stat.S_IFLNK | 0o777, os.fsencode(target))

    def data(self, path: Path, content: bytes, mode: int = 0o644, mtime: int = 0) -> None:
        """Add a regular file."""
        self._entry(path, stat.S_IFREG | mode, content, mtime)

    def device(self, path: Path, major: int, minor: int) -> None:
        """Add a character device."""
        self._entry(path, stat.S_IFCHR | 0o600, device=(major, minor))

    def copy(self, path: Path) -> None:
        """Add a file or link of this machine at its own path, with the links that lead to it."""
        for step in [*reversed(path.parents), path]:
            if step.is_symlink():
                self.link(step, os.readlink(step))
                self.copy(step.parent.resolve() / os.readlink(step) / path.relative_to(step))
                return
        if path.is_dir():
            self.folder(path)
        elif path.is_file():
            self._file(path, path)

    def move(self, path: Path, root: Path) -> None:
        """Add a file or link below ``root`` as if that were ``/``; links lead where they say."""
        at = Path("/", path.relative_to(root))
        if path.is_symlink():
            self.link(at, os.readlink(path))
        else:
            self._file(at, path)

    def close(self) -> None:
        """Write the archive's end; the file stays open."""
        self._write(END, 0, b"", 0, (0, 0))

    def _file(self, at: Path, path: Path) -> None:
        found = path.stat()
        self.data(at, path.read_bytes(), stat.S_IMODE(found.st_mode), int(found.st_mtime))

    def _entry(
        self, path: Path, mode: int, content: bytes = b"", mtime: int = 0, device: tuple[int, int] = (0, 0)
    ) -> None:
        name = os.path.normpath(path).lstrip("/")
        if not name or name in self.names:
            return
        for parent in reversed(Path(f"/{name}").parents):
            self.folder(parent)
        self.names.add(name)
        self._write(name, mode, content, mtime, device)

    def _write(self, name: str, mode: int, content: bytes, mtime: int, device: tuple[int, int]) -> None:
        raw = os.fsencode(name) + b"\0"
        numbers = (len(self.names), mode, 0, 0, 1, mtime, len(content), 0, 0, *device, len(raw), 0)
        head = b"070701" + b"".join(b"%08X" % number for number in numbers)
        self.file.write(_padded(head + raw) + _padded(content))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
