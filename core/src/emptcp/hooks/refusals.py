# SPDX-License-Identifier: Apache-2.0
"""Hear the driver's own sentence when it refuses an XDP link.

``bpf_link_create`` returns a number only. Since kernel 6.5 the text goes to a tracepoint, where a small
program of emptcp's leaves it in a map, by thread. Where any of that is missing, there is no sentence, and
nothing fails.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from emptcp import pybpf
from emptcp.pybpf import features

OBJECT = Path(__file__).parent.parent / "programs" / "attach_error.bpf.o"

_TRACEPOINT = "bpf_xdp_link_attach_failed"
_PROGRAM, _SENTENCES = "attach_error", "sentences"


@contextmanager
def listening() -> Iterator[Callable[[], str]]:
    """Give a function that returns what the driver said to this thread since; empty if it said nothing."""
    loaded = _loaded()
    if loaded is None:
        yield lambda: ""
        return
    sentences = loaded.maps[_SENTENCES]
    thread = struct.pack("=I", threading.get_native_id())
    try:
        link = pybpf.Link.attach_raw_tracepoint(loaded.programs[_PROGRAM], _TRACEPOINT)
    except pybpf.BpfError:
        yield lambda: ""
        return
    with link:
        sentences.delete(thread)
        yield lambda: (sentences.lookup(thread) or b"").split(b"\0")[0].decode(errors="replace")


@cache
def _loaded() -> pybpf.LoadedObject | None:
    if not features.has("attach_error"):
        return None
    try:
        return pybpf.load_object(OBJECT)
    except pybpf.BpfError:
        return None
