# SPDX-License-Identifier: Apache-2.0
"""Network namespaces: find one by name, path or pid, and run code inside it.

A thread enters the namespace, never the process: descriptors opened in it keep working afterwards, and
nothing else that runs in the process notices.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from emptcp.errors import EmptcpError, did_you_mean

NAMED = Path("/run/netns")
MOST_NAMES = 8
"""Names that a refusal lists."""

_CLONE_NEWNET = 0x40000000
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Namespace:
    """A network namespace.

    ``cookie`` is the kernel's number of it, unique until reboot (kernel 5.14; before that the inode's
    number). ``path`` is a file that leads to it, ``name`` what the operator calls it; empty for the one
    emptcp runs in.
    """

    cookie: int
    path: Path
    name: str

    def __str__(self) -> str:
        return self.name or "this namespace"


def resolve(where: str | int | Path | None = None) -> Namespace:
    """Return the namespace of a name (``ip netns``), a path, or a pid; None is the one this process is in.

    :raises EmptcpError: there is none, or it can't be entered.
    """
    path, name = _locate(where)
    with inside(Namespace(0, path, name)) as run:
        return Namespace(run(_cookie), path, name)


def named() -> list[str]:
    """Return the names that ``ip netns`` knows, sorted."""
    return sorted(entry.name for entry in NAMED.iterdir()) if NAMED.is_dir() else []


def by_cookie(cookie: int, name: str = "") -> Namespace:
    """Return the namespace with this cookie, looked for in this process, by name, then in all processes.

    ``name`` is what the operator called it once, and is tried first.

    :raises EmptcpError: it is gone, or held by no name and no process.
    """
    for where in ([name] if name else []) + ["", *named(), *_processes()]:
        try:
            found = resolve(where)
        except EmptcpError:
            continue
        if found.cookie == cookie:
            return found
    raise EmptcpError(f"the network namespace {cookie} ({name or 'without a name'}) is gone")


def _processes() -> Iterator[str]:
    """Yield one process of each network namespace that processes are in."""
    seen: set[str] = set()
    for entry in sorted(Path("/proc").glob("[0-9]*")):
        try:
            inode = os.readlink(entry / "ns" / "net")
        except OSError:
            continue
        if inode not in seen:
            seen.add(inode)
            yield entry.name


def call(namespace: Namespace, action: Callable[[], _Answer]) -> _Answer:
    """Run something in a namespace and return its result; what it raises is raised here.

    :raises EmptcpError: the namespace is gone, or rights are missing.
    """
    with inside(namespace) as run:
        answer: _Answer = run(action)
        return answer


@contextmanager
def inside(namespace: Namespace) -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Give a function that runs others in a namespace, all in one thread of its own.

    :raises EmptcpError: the namespace is gone, or rights are missing.
    """
    if _is_current(namespace.path):
        yield lambda action: action()
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="netns") as pool:
        pool.submit(enter, namespace).result()
        yield lambda action: pool.submit(action).result()


def enter(namespace: Namespace) -> None:
    """Move the calling thread into a namespace, for good: for threads that do nothing else.

    :raises EmptcpError: the namespace is gone, rights are missing, or this is the main thread.
    """
    if threading.current_thread() is threading.main_thread():
        raise EmptcpError(
            "the main thread stays in its network namespace", fix="Call it from a thread of its own."
        )
    try:
        with open(namespace.path, "rb") as file:
            _setns(file.fileno())
    except OSError as problem:
        raise _closed(namespace, problem) from None


def _locate(where: str | int | Path | None) -> tuple[Path, str]:
    if where is None or where == "":
        return Path(f"/proc/{os.getpid()}/ns/net"), ""
    text = str(where)
    if text.isdecimal() and not (NAMED / text).exists():
        return Path(f"/proc/{text}/ns/net"), text
    return (Path(text), text) if "/" in text else (NAMED / text, text)


def _unknown(where: str) -> EmptcpError:
    if where.isdecimal():
        return EmptcpError(f"there is no process {where} whose network namespace could be entered")
    names = named()
    near = did_you_mean(where, names)
    known = ", ".join(names[:MOST_NAMES]) or "none"
    if len(names) > MOST_NAMES:
        known += f" and {len(names) - MOST_NAMES} more"
    return EmptcpError(
        f"there is no network namespace '{where}'", fix=near.capitalize() or f"Those with a name: {known}."
    )


def _closed(namespace: Namespace, problem: OSError) -> EmptcpError:
    if isinstance(problem, PermissionError):
        fix = "Run as root with its capabilities (CAP_SYS_ADMIN is needed)."
        if not os.geteuid() and namespace.path.is_relative_to("/proc"):
            fix = "Give the namespace a name with 'ip netns attach', and use that."
        return EmptcpError(f"not permitted to enter the network namespace '{namespace}'", fix=fix)
    if isinstance(problem, FileNotFoundError | ProcessLookupError):
        return _unknown(namespace.name)
    return EmptcpError(f"{namespace.path} is no network namespace")


def _is_current(path: Path) -> bool:
    try:
        here = os.stat("/proc/thread-self/ns/net")
        there = os.stat(path)
    except OSError:
        return False
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _setns(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _cookie() -> int:
    from emptcp.pybpf import features

    if not features.has("netns_cookie"):
        return os.stat("/proc/thread-self/ns/net").st_ino
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        raw = any_socket.getsockopt(socket.SOL_SOCKET, features.SO_NETNS_COOKIE, 8)
    return int(struct.unpack("=Q", raw)[0])
