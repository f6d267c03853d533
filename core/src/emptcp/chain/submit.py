# SPDX-License-Identifier: Apache-2.0
"""Hand a joined program to the kernel, and put a refusal into the operator's words."""

from __future__ import annotations

import re
from collections.abc import Callable

from emptcp import pybpf
from emptcp.chain.joining import Joined
from emptcp.errors import EmptcpError

KINDS = {"xdp": "xdp", "tc": "sched_cls"}
"""Kind of program by the back-end its code is compiled for."""


def submit(joined: Joined, backend: str, name: str) -> pybpf.Program:
    """Load a program. Raises :class:`EmptcpError` naming policy and stage when the verifier refuses."""
    return ready(joined, backend, name)()


def ready(joined: Joined, backend: str, name: str) -> Callable[[], pybpf.Program]:
    """Return what loads a program as :func:`submit` does, and is to be called once.

    A thread that calls it is in the kernel at once: it has little to do in Python, where others are busy.
    """
    types = pybpf.load_btf(joined.btf)
    functions, lines = joined.func_info, joined.line_info

    def load() -> pybpf.Program:
        with types:
            try:
                return pybpf.load_program(
                    KINDS[backend],
                    joined.instructions,
                    name=name,
                    btf=types.fd,
                    func_info=functions,
                    line_info=lines,
                )
            except pybpf.VerifierError as error:
                raise _refusal(error, joined) from error

    return load


def _refusal(error: pybpf.VerifierError, joined: Joined) -> EmptcpError:
    """Name the stage whose code the verifier stopped in, or the budget that all of them exceed."""
    if "BPF program is too large" in error.log:
        return EmptcpError(
            f"the policies of one hook ({len(joined.instructions) // 8} instructions) take the kernel's "
            "verifier more steps than it allows",
            fix="Use fewer or simpler policies on this device.",
        )
    reached = re.findall(r"^(\d+): \(", error.log, re.MULTILINE)
    where = joined.place(int(reached[-1])) if reached else "the joined program"
    return EmptcpError(f"{where}: {error.sentence}", fix=error.fix, where=error.where)
