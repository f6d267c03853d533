# SPDX-License-Identifier: Apache-2.0
"""Maps: create, open, read, write, in batches or by mapped memory."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from emptcp.pybpf import descriptor, kinds
from emptcp.pybpf.errors import BpfError, failed
from emptcp.pybpf.libbpf import library

BPF_ANY, BPF_NOEXIST, BPF_EXIST = 0, 1, 2
BPF_F_NO_PREALLOC = 1 << 0
BPF_F_RDONLY_PROG = 1 << 7
BPF_F_MMAPABLE = 1 << 10

_BATCH = 256


@dataclass(frozen=True)
class MapInfo:
    """What the kernel says about a map. Sizes are in bytes; type ids are of the BTF with ``btf_id``."""

    kind: str
    id: int
    name: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    btf_id: int
    btf_key_type_id: int
    btf_value_type_id: int


class Map(descriptor.Descriptor):
    """A map in the kernel."""

    what = "map"

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._write = library().function("bpf_map_update_elem")
        # Bytes of what update() writes as it is: known from its first call on, and never for per-CPU kinds.
        self._plain_key = self._plain_value = -1

    @classmethod
    def create(
        cls,
        kind: str,
        key_size: int,
        value_size: int,
        max_entries: int,
        *,
        flags: int = 0,
        name: str = "",
        btf: int | None = None,
        key_type: int = 0,
        value_type: int = 0,
        inner: Map | None = None,
    ) -> Self:
        """Create a map.

        :param kind: as in ``kinds.MAPS`` (``array``, ``lru_hash``, ``ringbuf`` ..).
        :param btf: descriptor of a loaded BTF that ``key_type`` and ``value_type`` are ids in.
        :param inner: template of the maps that a map of maps holds.
        :raises BpfError: the kernel refuses it.
        """
        opened = library()
        opts = opened.options("bpf_map_create_opts", map_flags=flags)
        if btf is not None and value_type:
            opts.btf_fd, opts.btf_key_type_id, opts.btf_value_type_id = btf, key_type, value_type
        if inner is not None:
            opts.inner_map_fd = inner.fd
        number = kinds.number(kinds.MAPS, "map", kind)
        sizes = (key_size, value_size, max_entries)
        fd = opened.function("bpf_map_create")(number, kernel_name(name), *sizes, opts)
        if fd < 0:
            raise failed(
                f"cannot create the {kind} map '{name}' ({key_size}+{value_size} B x {max_entries})", fd
            )
        return cls(fd)

    @classmethod
    def from_id(cls, number: int) -> Self:
        """Open the map with this id.

        :raises BpfError: there is none.
        """
        return cls(descriptor.by_id("bpf_map_get_fd_by_id", number, cls.what))

    def duplicate(self) -> Map:
        """Return another owner of the same map."""
        return Map(os.dup(self.fd))

    @cached_property
    def info(self) -> MapInfo:
        """What the kernel says about the map."""
        info = descriptor.information(self.fd, "bpf_map_info", self.what)
        return MapInfo(
            kind=kinds.name(kinds.MAPS, info.type),
            id=info.id,
            name=library().text(info.name),
            key_size=info.key_size,
            value_size=info.value_size,
            max_entries=info.max_entries,
            flags=info.map_flags,
            btf_id=info.btf_id,
            btf_key_type_id=info.btf_key_type_id,
            btf_value_type_id=info.btf_value_type_id,
        )

    @property
    def id(self) -> int:
        """The kernel's number of the map."""
        return self.info.id

    @cached_property
    def _slots(self) -> int:
        """Bytes of an element as the system call moves it: per-CPU kinds give all CPUs' values, 8-aligned."""
        size = self.info.value_size
        if not self._per_cpu:
            return size
        return _aligned(size) * int(library().function("libbpf_num_possible_cpus")())

    @cached_property
    def _per_cpu(self) -> bool:
        return self.info.kind in kinds.PER_CPU

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None. For per-CPU kinds see :meth:`lookup_percpu`.

        :raises BpfError: the key has the wrong length, or the kernel refuses.
        """
        opened = library()
        value = opened.ffi.new("char[]", max(self._slots, 1))
        code = opened.function("bpf_map_lookup_elem")(self.fd, self._key(key), value)
        if code == -errno.ENOENT:
            return None
        if code < 0:
            raise failed(f"cannot read the map '{self.info.name}'", code)
        return bytes(opened.ffi.buffer(value, self._slots))

    def lookup_percpu(self, key: bytes) -> list[bytes] | None:
        """Return the values of a key on each possible CPU, or None."""
        value = self.lookup(key)
        return None if value is None else self._split(value)

    def update(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
        """Set a value. For per-CPU kinds one value is set on every CPU.

        :param flags: ``BPF_ANY``, ``BPF_NOEXIST`` or ``BPF_EXIST``.
        :raises BpfError: wrong lengths, or the map is full, frozen or refuses the flag.
        """
        # What sets thousands of entries one by one gives bytes of the right lengths, and every step counts.
        if (
            len(key) != self._plain_key
            or len(value) != self._plain_value
            or type(key) is not bytes
            or type(value) is not bytes
        ):
            key, value = self._checked(key, value)
        code = self._write(self._fd, key, value, flags)
        if code < 0:
            self._must_be_open()
            raise failed(f"cannot write to the map '{self.info.name}'", code, fix=self._full(code))

    def update_percpu(self, key: bytes, values: Sequence[bytes]) -> None:
        """Set a value on each possible CPU, in the order of :meth:`lookup_percpu`.

        :raises BpfError: wrong lengths, or the kernel refuses.
        """
        size = _aligned(self.info.value_size)
        stored = b"".join(bytes(value).ljust(size, b"\0") for value in values)
        if not self._per_cpu or len(stored) != self._slots:
            raise BpfError(f"the map '{self.info.name}' does not take {len(values)} values per key")
        code = self._write(self.fd, self._key(key), stored, BPF_ANY)
        if code < 0:
            raise failed(f"cannot write to the map '{self.info.name}'", code)

    def delete(self, key: bytes) -> bool:
        """Remove a key; return whether it was there."""
        code = library().function("bpf_map_delete_elem")(self.fd, self._key(key))
        if code < 0 and code != -errno.ENOENT:
            raise failed(f"cannot delete from the map '{self.info.name}'", code)
        return bool(code == 0)

    def keys(self) -> Iterator[bytes]:
        """Yield the keys, each at most once per walk; entries that come or go meanwhile may be missed."""
        opened = library()
        size = self.info.key_size
        previous: Any = opened.ffi.NULL
        following = opened.ffi.new("char[]", size)
        for _ in range(2 * self.info.max_entries + 1):
            if opened.function("bpf_map_get_next_key")(self.fd, previous, following) < 0:
                return
            key = bytes(opened.ffi.buffer(following, size))
            yield key
            previous = key

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and values, in batches where the kernel has them.

        The value of a per-CPU kind is all CPUs' values side by side, each 8-aligned.
        """
        batches = self._batches()
        first = next(batches, None)
        if first is None:
            yield from self._walk()
            return
        yield from first
        for batch in batches:
            yield from batch

    def items_percpu(self) -> Iterator[tuple[bytes, list[bytes]]]:
        """Yield keys with their values on each possible CPU."""
        return ((key, self._split(value)) for key, value in self.items())

    def update_batch(self, pairs: Iterable[tuple[bytes, bytes]]) -> int:
        """Write many entries with few system calls; return how many.

        :raises BpfError: the map is full or refuses; entries before that are written.
        """
        pairs = list(pairs)
        for start in range(0, len(pairs), _BATCH):
            part = pairs[start : start + _BATCH]
            if not self._write_batch(part):
                for key, value in part:
                    self.update(key, value)
        return len(pairs)

    def copy(self, other: Map) -> None:
        """Write the entries of a map of the same kind, each CPU's for itself.

        :raises BpfError: the map is full or refuses.
        """
        if not self._per_cpu:
            self.update_batch(other.items())
            return
        for key, values in other.items_percpu():
            self.update_percpu(key, values)

    def delete_batch(self, keys: Iterable[bytes]) -> int:
        """Remove many keys with few system calls; return how many of them were there."""
        wanted, removed = list(keys), 0
        while wanted:
            part = wanted[:_BATCH]
            done = self._remove_batch(part)
            if done is None:
                return removed + sum(self.delete(key) for key in wanted)
            removed += done
            # The kernel stops at a key that is not there: it is passed over.
            wanted = wanted[done + (done < len(part)) :]
        return removed

    def mmap(self) -> memoryview:
        """Return the values of a ``BPF_F_MMAPABLE`` array as writable memory.

        Element n begins at n times the value size rounded up to 8. It stays valid after close().

        :raises BpfError: the map was not created for that, or is frozen.
        """
        info = self.info
        length = _aligned(info.value_size) * info.max_entries
        pages = -(-length // mmap.PAGESIZE) * mmap.PAGESIZE
        try:
            memory = mmap.mmap(self.fd, pages, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as problem:
            raise failed(f"the map '{info.name}' cannot be mapped into memory", problem.errno or 0) from None
        return memoryview(memory)[:length]

    def freeze(self) -> None:
        """Make the map read-only for user space."""
        code = library().function("bpf_map_freeze")(self.fd)
        if code < 0:
            raise failed(f"cannot freeze the map '{self.info.name}'", code)

    def _checked(self, key: bytes, value: bytes) -> tuple[bytes, bytes]:
        if not self._per_cpu:
            self._plain_key, self._plain_value = self.info.key_size, self.info.value_size
        return self._key(key), self._value(value)

    def _key(self, key: bytes) -> bytes:
        if len(key) != self.info.key_size:
            raise BpfError(
                f"a key of the map '{self.info.name}' has {self.info.key_size} bytes, not {len(key)}"
            )
        return bytes(key)

    def _value(self, value: bytes) -> bytes:
        size = self.info.value_size
        if len(value) != size:
            raise BpfError(f"a value of the map '{self.info.name}' has {size} bytes, not {len(value)}")
        if not self._per_cpu:
            return bytes(value)
        return bytes(value).ljust(_aligned(size), b"\0") * (self._slots // _aligned(size))

    def _keys(self, keys: Sequence[bytes]) -> bytes:
        """Return keys side by side; their lengths are looked at all at once, where each is right."""
        right = set(map(len, keys)) == {self.info.key_size}
        return b"".join(keys if right else map(self._key, keys))

    def _values(self, values: Sequence[bytes]) -> bytes:
        """Return values side by side, as :meth:`_keys` does."""
        right = not self._per_cpu and set(map(len, values)) == {self.info.value_size}
        return b"".join(values if right else map(self._value, values))

    def _split(self, value: bytes) -> list[bytes]:
        size, step = self.info.value_size, _aligned(self.info.value_size)
        if not self._per_cpu:
            raise BpfError(f"the map '{self.info.name}' is a {self.info.kind}, not a per-CPU map")
        return [value[start : start + size] for start in range(0, len(value), step)]

    def _full(self, code: int) -> str:
        full = code in (-errno.E2BIG, -errno.ENOSPC)
        return f"It holds at most {self.info.max_entries} entries: make it larger." if full else ""

    def _walk(self) -> Iterator[tuple[bytes, bytes]]:
        for key in self.keys():
            value = self.lookup(key)
            if value is not None:
                yield key, value

    def _batches(self) -> Iterator[list[tuple[bytes, bytes]]]:
        """Yield lists of entries by BPF_MAP_LOOKUP_BATCH.

        Nothing at all when that can't be used for this map.
        """
        from emptcp.pybpf import features

        if self.info.kind not in _BATCHED or not features.has("batch"):
            return
        cursor = _Cursor(self.fd, self.info.key_size, self._slots, _BATCH)
        for _ in range(2 * self.info.max_entries + 2):
            found = cursor.read()
            if found is None:
                return
            yield found
            if cursor.ended:
                return

    def _write_batch(self, pairs: list[tuple[bytes, bytes]]) -> bool:
        """Write entries at once; return False when this map or kernel has no batches."""
        from emptcp.pybpf import features

        if self.info.kind not in _BATCHED or not features.has("batch"):
            return False
        opened = library()
        keys = self._keys([key for key, _ in pairs])
        values = self._values([value for _, value in pairs])
        count = opened.ffi.new("uint32_t *", len(pairs))
        opts = opened.options("bpf_map_batch_opts")
        code = opened.function("bpf_map_update_batch")(self.fd, keys, values, count, opts)
        if code in _NO_BATCHES:
            return False
        if code < 0:
            raise failed(f"cannot write to the map '{self.info.name}'", code, fix=self._full(code))
        return True

    def _remove_batch(self, keys: list[bytes]) -> int | None:
        """Remove keys at once, up to the first that is not there; ``None`` where there are no batches."""
        from emptcp.pybpf import features

        if self.info.kind not in _BATCHED or not features.has("batch"):
            return None
        opened = library()
        count = opened.ffi.new("uint32_t *", len(keys))
        packed = self._keys(keys)
        opts = opened.options("bpf_map_batch_opts")
        code = opened.function("bpf_map_delete_batch")(self.fd, packed, count, opts)
        if code in _NO_BATCHES:
            return None
        if code < 0 and code != -errno.ENOENT:
            raise failed(f"cannot delete from the map '{self.info.name}'", code)
        return int(count[0])


# The kernel's own ENOTSUPP (524) is no errno of user space.
_NO_BATCHES = (-errno.EOPNOTSUPP, -524)
_BATCHED = frozenset({"hash", "lru_hash", "array", "percpu_hash", "lru_percpu_hash", "lpm_trie"})


class _Cursor:
    """A walk by BPF_MAP_LOOKUP_BATCH: the kernel's place in it and the room for one batch."""

    def __init__(self, fd: int, key_size: int, slots: int, count: int) -> None:
        self._fd, self._key_size, self._slots, self._count = fd, key_size, slots, count
        # A hash's place is a bucket number of 4 bytes, an array's and a trie's is a key.
        self._place = library().ffi.new("char[]", max(key_size, 8))
        self._started = False
        self.ended = False

    def read(self) -> list[tuple[bytes, bytes]] | None:
        """Return the next entries, or None when the kernel refuses batches here."""
        opened = library()
        keys = opened.ffi.new("char[]", self._key_size * self._count)
        values = opened.ffi.new("char[]", self._slots * self._count)
        count = opened.ffi.new("uint32_t *", self._count)
        before = self._place if self._started else opened.ffi.NULL
        opts = opened.options("bpf_map_batch_opts")
        code = opened.function("bpf_map_lookup_batch")(
            self._fd, before, self._place, keys, values, count, opts
        )
        if code == -errno.ENOSPC:
            # One bucket of the hash holds more than a batch.
            self._count *= 2
            return []
        self.ended = code == -errno.ENOENT
        if code in _NO_BATCHES and not self._started:
            return None
        if code < 0 and not self.ended:
            raise failed("cannot read a map in batches", code)
        self._started = True
        return self._pairs(bytes(opened.ffi.buffer(keys)), bytes(opened.ffi.buffer(values)), count[0])

    def _pairs(self, keys: bytes, values: bytes, count: int) -> list[tuple[bytes, bytes]]:
        size, slots = self._key_size, self._slots
        return [(keys[n * size : (n + 1) * size], values[n * slots : (n + 1) * slots]) for n in range(count)]


def kernel_name(name: str) -> bytes:
    """Return a name as the kernel takes it for programs and maps: 15 characters of ``[A-Za-z0-9_.]``."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_.") else "_" for c in name)[:15].encode()


def _aligned(size: int) -> int:
    return (size + 7) & ~7
