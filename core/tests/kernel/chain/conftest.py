# SPDX-License-Identifier: Apache-2.0
"""What tests of programs share: a way to their parameters while they are loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from emptcp.chain.dryrun import Runner
from emptcp.pybpf import BPF_F_MMAPABLE


@pytest.fixture(scope="session")
def parameters() -> Callable[[Runner], AbstractContextManager[memoryview]]:
    """Return what opens the words of a program's parameters: its own memory, or a copy written back."""
    return _words


@contextmanager
def _words(runner: Runner) -> Iterator[memoryview]:
    values = runner.loaded.parameters
    if values.info.flags & BPF_F_MMAPABLE:
        yield values.mmap().cast("Q")
        return
    copy = bytearray(values.lookup(bytes(4)) or b"")
    yield memoryview(copy).cast("Q")
    values.update(bytes(4), bytes(copy))
