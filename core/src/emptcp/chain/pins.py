# SPDX-License-Identifier: Apache-2.0
"""Where emptcp's state stands: the pin tree in a BPF file system, and the run folder beside it.

::

    <bpffs>/emptcp/v1/packet_<hook>_<back-end>_<size>  the parsed packet, one map for all programs of a kind
    <bpffs>/emptcp/v1/events, lost                     the ring buffer of events, and what it lost
    <bpffs>/emptcp/v1/maps/<plugin>/<map>              a plugin's maps, shared by all programs that name them
    <bpffs>/emptcp/v1/tables/<table>/<kind>_<name>_<layout>_<shape>  a set or map: how it is made, hashed
    <bpffs>/emptcp/v1/<netns cookie>/flows             the flow table of a network namespace
    <bpffs>/emptcp/v1/<netns cookie>/connections       the tokens of both ends, each by the other
    <bpffs>/emptcp/v1/<netns cookie>/state_slots       which plugin has which bytes of its entries
    <bpffs>/emptcp/v1/<netns cookie>/socket/<name>/    a socket companion: `events`, `iterator`
    <bpffs>/emptcp/v1/<netns cookie>/<hook>/<ifindex>/ one program: `link`, or `program` without links;
                                                       with the engine `tail` also `stages_<id>`, its array

Everything about a program is reached from its pin: its maps by their ids, among them the description of
what it runs. So there is no second record that could disagree with the kernel after a crash.

The tree lies in emptcp's own mount ``/run/emptcp/bpf`` if there is one, else in ``/sys/fs/bpf``, else the own
mount is made. All of it as the first process sees it, or the eldest ancestor that may be asked: a shell in
``ip netns exec`` has another /sys, and a mount made there would end with it, and every policy with the mount.
"""

from __future__ import annotations

import os
import subprocess
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emptcp.errors import EmptcpError
from emptcp.pybpf.descriptor import is_bpffs

if TYPE_CHECKING:
    from emptcp.chain.storage import Store
    from emptcp.pybpf import Program

VERSION = "v1"
LINK, PROGRAM, STAGES = "link", "program", "stages_"
"""Names of a program's pins. The kernel empties a program array when its last pin goes."""
DEFAULT = Path("/run/emptcp")
_ANCESTORS = 256


def run_folder() -> Path:
    """Return the folder of locks, journal and tables: ``EMPTCP_RUN`` or ``/run/emptcp``."""
    return Path(os.environ.get("EMPTCP_RUN", DEFAULT))


def _instance() -> str:
    """Return the tree's first folder: another run folder is another instance, which shares nothing."""
    folder = run_folder()
    return "emptcp" if folder == DEFAULT else f"emptcp-{zlib.crc32(os.fsencode(folder)):08x}"


def make_run_folder() -> Path:
    """Create the run folder, readable by root alone."""
    folder = run_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an :class:`OSError` of writing, which names no file, name this one."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@dataclass(frozen=True, order=True)
class Location:
    """Where one program sits: a network namespace, a hook and a device."""

    cookie: int
    hook: str
    ifindex: int


@dataclass(frozen=True)
class Pins:
    """The pin tree below ``root`` (``<bpffs>/emptcp/v1``)."""

    root: Path

    def packet(self, hook: str, backend: str, size: int) -> Path:
        """Return the pin of the parsed-packet map of a hook and back-end, whose value has ``size`` bytes."""
        return self.root / f"packet_{hook}_{backend}_{size}"

    def events(self) -> Path:
        """Return the pin of the ring buffer of events."""
        return self.root / "events"

    def lost(self) -> Path:
        """Return the pin of the counter of events that were lost."""
        return self.root / "lost"

    def plugin_map(self, plugin: str, name: str) -> Path:
        """Return the pin of a plugin's map."""
        return self.root / "maps" / plugin / name

    def store(self, store: Store) -> Path:
        """Return the pin of a set or map; its name tells how it is made.

        A BPF file system keeps names with dots for itself, which the name of a table may have.
        """
        made = store.storage
        return self.stores(store.table) / f"{store.kind}_{store.name}_{made.layout}_{made.shape}"

    def stores(self, table: str) -> Path:
        """Return the folder of a table's sets and maps."""
        return self.root / "tables" / table.replace(".", "%2e")

    def store_pins(self, table: str) -> list[Path]:
        """Return the pins of a table's sets and maps."""
        return sorted(self.stores(table).glob("*"))

    def store_name(self, path: Path) -> tuple[str, str]:
        """Return the kind and name of the set or map that a pin is of."""
        kind, _, rest = path.name.partition("_")
        return kind, rest.rsplit("_", 2)[0]

    def store_layout(self, path: Path) -> str:
        """Return the hash over what the entries look like, from a pin's name."""
        return path.name.rsplit("_", 2)[1]

    def last_store(self, store: Store) -> Path | None:
        """Return the pin that a set or map has by another declaration; one of the same layout comes first."""
        mine = self.store(store)
        found = [
            path for path in self.store_pins(store.table) if self.store_name(path) == (store.kind, store.name)
        ]
        others = [path for path in found if path != mine]
        others.sort(key=lambda path: self.store_layout(path) != store.storage.layout)
        return others[0] if others else None

    def with_stores(self) -> list[str]:
        """Return the tables that have sets or maps."""
        return sorted(path.name.replace("%2e", ".") for path in self.root.glob("tables/*"))

    def flows(self, cookie: int) -> Path:
        """Return the pin of a namespace's flow table."""
        return self.root / str(cookie) / "flows"

    def connections(self, cookie: int) -> Path:
        """Return the pin of a namespace's table of connections."""
        return self.root / str(cookie) / "connections"

    def state_slots(self, cookie: int) -> Path:
        """Return the pin of the map that says which plugin has which slot of the flow table."""
        return self.root / str(cookie) / "state_slots"

    def sockets(self, cookie: int) -> Path:
        """Return the folder of a namespace's socket companions."""
        return self.root / str(cookie) / "socket"

    def with_sockets(self) -> list[int]:
        """Return the cookies of the namespaces that have socket companions."""
        return sorted(int(path.parent.name) for path in self.root.glob("[0-9]*/socket"))

    def folder(self, location: Location) -> Path:
        """Return the folder of one program's pins."""
        return self.root / str(location.cookie) / location.hook / str(location.ifindex)

    def locations(self) -> Iterator[Location]:
        """Yield every location that has a folder, in a fixed order."""
        found = []
        for path in self.root.glob("[0-9]*/[a-z]*/[0-9]*"):
            cookie, hook, ifindex = path.parts[-3:]
            found.append(Location(int(cookie), hook, int(ifindex)))
        yield from sorted(found)

    def make(self, folder: Path) -> Path:
        """Create a folder of the tree, mode 0700."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def strays(self) -> Iterator[Path]:
        """Yield the pins of what no program uses: beside no program, or of another one's array."""
        for location in self.locations():
            folder = self.folder(location)
            kept = {LINK, PROGRAM, *(f"{STAGES}{number}" for number in _maps_used(folder))}
            yield from (path for path in sorted(folder.iterdir()) if path.name not in kept)

    def prune(self) -> None:
        """Remove pins and folders that are of no use, and shared maps that no program is left to use.

        To be called under the lock: a change that is under way has pins that no program uses yet.
        """
        self._unpin(self.strays())
        self._remove_empty()
        used = {str(location.cookie) for location in self.locations()}
        for folder in self.root.glob("[0-9]*"):
            if folder.name not in used:
                self._unpin(folder.rglob("*"))
        if not used:
            self._unpin(
                path
                for pattern in ("packet_*", "events", "lost", "maps/*/*")
                for path in self.root.glob(pattern)
            )
        self._remove_empty()
        _remove_if_empty(self.root)
        _remove_if_empty(self.root.parent)

    def _remove_empty(self) -> None:
        for folder, _, pinned in os.walk(self.root, topdown=False):
            if not pinned:
                _remove_if_empty(Path(folder))

    def _unpin(self, paths: Iterable[Path]) -> None:
        for path in [path for path in paths if not path.is_dir()]:
            path.unlink()


def _maps_used(folder: Path) -> tuple[int, ...]:
    """Return the ids of the maps of a folder's program; none without one, or without arrays beside it."""
    from emptcp import pybpf

    if not any(folder.glob(f"{STAGES}*")):
        return ()
    if (folder / LINK).exists():
        with pybpf.Link.from_pin(folder / LINK) as link:
            return _maps(pybpf.Program.from_id(link.info.program_id))
    return _maps(pybpf.Program.from_pin(folder / PROGRAM)) if (folder / PROGRAM).exists() else ()


def _maps(program: Program) -> tuple[int, ...]:
    with program:
        return tuple(program.info.map_ids)


def _remove_if_empty(path: Path) -> None:
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()


def find() -> Pins | None:
    """Return the pin tree if a BPF file system is there, without making one."""
    for mount in (_own_mount(), _in_first_process(Path("/sys/fs/bpf"))):
        if mount.is_dir() and is_bpffs(mount):
            return Pins(mount / _instance() / VERSION)
    return None


def open_or_make() -> Pins:
    """Return the pin tree, mounting a BPF file system where there is none.

    Raises :class:`EmptcpError` when it can't be mounted.
    """
    pins = find() or _mount()
    pins.make(pins.root)
    return pins


def _mount() -> Pins:
    folder = make_run_folder() / "bpf"
    command = ["mount", "-t", "bpf", "-o", "mode=0700", "bpf", str(folder)]
    elder = _elder()
    if not _same_mounts(elder):
        command = ["nsenter", "--target", str(elder), "--mount", *command]
    folder.mkdir(mode=0o700, exist_ok=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EmptcpError(
            f"no BPF file system is mounted, and none could be mounted on {folder}: {done.stderr.strip()}",
            fix="Run as root, or mount one: mount -t bpf bpf /sys/fs/bpf",
        )
    return Pins(_own_mount() / _instance() / VERSION)


def _own_mount() -> Path:
    return _in_first_process(run_folder() / "bpf")


def _in_first_process(path: Path) -> Path:
    elder = _elder()
    return path if _same_mounts(elder) else Path(f"/proc/{elder}/root") / path.relative_to("/")


def _same_mounts(process: int) -> bool:
    """Whether this process sees the mounts of another."""
    return _mounts(os.getpid()) == _mounts(process)


def _elder() -> int:
    """Return the first process, or the eldest ancestor that this one has the rights to look at.

    In some containers no one may look at the first process.
    """
    if _mounts(1):
        return 1
    elder = os.getpid()
    for _ in range(_ANCESTORS):
        parent = _parent(elder)
        if parent < 1 or not _mounts(parent):
            break
        elder = parent
    return elder


def _mounts(process: int) -> str:
    """Return a process's mount namespace as a name, empty without rights to tell."""
    try:
        return os.readlink(f"/proc/{process}/ns/mnt")
    except OSError:
        return ""


def _parent(process: int) -> int:
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    # The command's name, in parentheses, may hold spaces and parentheses of its own.
    return int(stat.rpartition(")")[2].split()[1])
