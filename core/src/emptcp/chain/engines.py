# SPDX-License-Identifier: Apache-2.0
"""The two engines, from one plan: how stages become programs, and what the parameter map holds besides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from emptcp import pybpf
from emptcp.chain import context, fused, tail
from emptcp.chain.carriers import Tables, check_room
from emptcp.chain.joining import Binding
from emptcp.chain.layout import Slot, aligned
from emptcp.chain.plan import Plan
from emptcp.chain.submit import ready, submit

FUSED, TAIL, METADATA = "fused", "tail", "tail-metadata"
"""The last one is ``tail`` with the chain context in XDP metadata and ``skb->cb``."""

PROGRAMS = "emptcp_stages"
"""Name of the program array of the engine ``tail``."""


@dataclass
class Made:
    """A program that can be attached. ``stages`` is the engine ``tail``'s program array."""

    program: pybpf.Program
    stages: pybpf.Map | None = None


def tables(
    engine: str, plan: Plan, slots: Sequence[Slot | None], counters: Sequence[int], size: int
) -> tuple[int, bytes]:
    """Return where the chain context stands in a parameter value of ``size`` bytes so far, and its bytes.

    Empty for the engine ``fused``. Raises :class:`EmptcpError` when the chain is too long for ``tail``.
    """
    if engine == FUSED:
        return size, b""
    numbers = {made: number for number, made in enumerate(tail.variants(plan))}
    built = context.build(plan, lambda step: numbers[tail.variant(plan, step)], slots, counters)
    return aligned(size), built.encode()


def join(
    engine: str,
    plan: Plan,
    binding: Binding,
    offset: int,
    size: int,
    flows: Callable[[], pybpf.Map],
) -> Callable[[], Made]:
    """Join a plan and return what loads it, which may be called in another thread.

    ``offset`` and ``size`` are of the context in the parameter value.
    """
    if engine == FUSED:
        load = ready(fused.join(plan, binding), binding.backend, _name(plan))
        return lambda: Made(load())
    if engine == METADATA:
        check_room(len(plan.steps) + 1, binding.backend)
    flow_table = flows().fd if plan.flow else -1
    return lambda: _load_stages(engine, plan, binding, offset, size, flow_table)


def _load_stages(engine: str, plan: Plan, binding: Binding, offset: int, size: int, flow_table: int) -> Made:
    """Join and load each stage, then the root."""
    found = tail.variants(plan)
    count = len(plan.steps) + 1
    choices = size // 4 - 3 * count if context.width(plan) else 0
    metadata = engine == METADATA
    with ExitStack() as opened:
        array = pybpf.Map.create("prog_array", 4, 4, max(len(found), 1), name=PROGRAMS)
        stages = opened.enter_context(array)
        placed = Tables(offset, count, choices, offset, stages.fd, len(found), flow_table)
        for number, made in enumerate(found):
            one = tail.stage(plan, binding, placed, made, metadata)
            with submit(one, binding.backend, "emptcp_stage") as program:
                stages.update(number.to_bytes(4, "little"), program.fd.to_bytes(4, "little"))
        root = submit(tail.root(plan, binding, placed, metadata), binding.backend, _name(plan))
        opened.pop_all()
    return Made(root, stages)


def _name(plan: Plan) -> str:
    return f"emptcp_{plan.hook}"
