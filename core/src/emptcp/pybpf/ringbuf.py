# SPDX-License-Identifier: Apache-2.0
"""Ring buffers: records that programs send, handed to a callback in order."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Self

from emptcp.pybpf.errors import BpfError, failed
from emptcp.pybpf.libbpf import library
from emptcp.pybpf.map import Map


class RingBuffer:
    """Reads one ring buffer map. A context manager."""

    def __init__(self, source: Map, callback: Callable[[bytes], None]) -> None:
        """Begin to read.

        :param callback: is called with each record from within :meth:`poll`; what it raises, poll raises.
        :raises BpfError: the map is no ring buffer.
        """
        opened = library()
        self._library = opened
        self._problem: BaseException | None = None
        # libbpf calls it as long as the buffer lives.
        self._handler = opened.ffi.callback("int(void *, void *, size_t)", self._hand_on(callback))
        null = opened.ffi.NULL
        self._buffer = opened.function("ring_buffer__new")(source.fd, self._handler, null, null)
        if self._buffer == null:
            raise failed(f"cannot read the map '{source.info.name}' as a ring buffer", opened.ffi.errno)

    @property
    def fd(self) -> int:
        """A descriptor that becomes readable when there are records, for select and asyncio."""
        return int(self._library.function("ring_buffer__epoll_fd")(self._open()))

    def poll(self, timeout_ms: int = 0) -> int:
        """Wait for records, hand all that are there to the callback, and return how many they were.

        :param timeout_ms: 0 returns at once, -1 waits without end. A signal ends the wait early.
        :raises BpfError: the buffer was closed, or the kernel refuses.
        """
        code = int(self._library.function("ring_buffer__poll")(self._open(), timeout_ms))
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem
        if code == -errno.EINTR:
            return 0
        if code < 0:
            raise failed("cannot read the ring buffer", code)
        return code

    def close(self) -> None:
        """Stop reading. Records that were not read stay in the map."""
        buffer, self._buffer = self._buffer, None
        if buffer:
            self._library.function("ring_buffer__free")(buffer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _open(self) -> Any:
        if not self._buffer:
            raise BpfError("this ring buffer was closed")
        return self._buffer

    def _hand_on(self, callback: Callable[[bytes], None]) -> Callable[[Any, Any, int], int]:
        """Return what libbpf calls with each record: a closure, for every look-up counts in it."""
        buffer = self._library.ffi.buffer

        def received(_context: Any, data: Any, size: int) -> int:
            try:
                callback(buffer(data, size)[:])
            except BaseException as problem:  # an exception cannot pass through libbpf
                self._problem = problem
                return -errno.ECANCELED
            return 0

        return received
