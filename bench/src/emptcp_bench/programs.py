# SPDX-License-Identifier: Apache-2.0
"""The programs that are compared: hand-written ones, and chains as ``emptcp apply`` would attach them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from pathlib import Path

from emptcp import pybpf
from emptcp.chain.dryrun import Runner
from emptcp.chain.plan import BoundPolicy, FragmentRef, Stage
from emptcp.errors import EmptcpError
from emptcp.policy import model
from emptcp_bench import packets

HAND_WRITTEN = (
    "empty",
    "look_up",
    "bare_flows_1",
    "bare_flows_7",
    "bare_flow_1",
    "whole_flows_1",
    "whole_flows_7",
    "whole_flow_1",
)
"""Functions of monolith.bpf.c, without the back-end."""

CHAINS = {
    "fused_flows_1": ("in_flows", 1, False),
    "fused_flows_7": ("in_flows", 7, False),
    "fused_flow_1": ("is_flow", 1, False),
    "fused_state_1": ("in_flows", 1, True),
}
"""Chain: its selector, how many windows it rewrites, whether an actor keeps a state per flow."""

_MASKS = tuple(1 << bit for bit in range(7))
_FLOWS_MAP, _SETTINGS_MAP = "bench_flows", "monolith.bss"


@contextmanager
def loaded(backend: str) -> Iterator[dict[str, pybpf.Program]]:
    """Load all programs for a back-end, ``xdp`` or ``tc``, with the same flows; yield them by name."""
    with ExitStack() as stack:
        names = [f"{name}_{backend}" for name in HAND_WRITTEN]
        written = stack.enter_context(pybpf.load_object(_object("monolith"), programs=names))
        _fill(written.maps[_FLOWS_MAP])
        written.maps[_SETTINGS_MAP].update(bytes(4), packets.wanted() + struct.pack("<7I", *_MASKS))
        found = {name: written.programs[f"{name}_{backend}"] for name in HAND_WRITTEN}
        for name, (selector, rewrites, state) in CHAINS.items():
            runner = stack.enter_context(Runner([_policy(selector, rewrites, state)], backend=backend))
            if selector == "in_flows":
                _fill(runner.map(_FLOWS_MAP))
            found[name] = runner.loaded.program
        yield found


def _object(name: str) -> Path:
    path = Path(str(files("emptcp_bench") / f"{name}.bpf.o"))
    if not path.exists():
        fix = "Install emptcp-bench from a wheel, or run `make setup`."
        raise EmptcpError(f"the compiled programs {path} are missing", fix=fix)
    return path


def _fill(flows: pybpf.Map) -> None:
    flows.update_batch([(packets.key(number), struct.pack("<I", number)) for number in range(packets.FLOWS)])


def _policy(selector: str, rewrites: int, state: bool) -> BoundPolicy:
    wanted = packets.wanted() if selector == "is_flow" else b""
    masks = [struct.pack("<I", mask) for mask in _MASKS[:rewrites]]
    return BoundPolicy(
        table="bench",
        name=selector,
        when=model.Select(model.StageSpec("selector", selector)),
        selectors=(_stage("selector", selector, wanted),),
        actors=tuple(_actors(masks, state)),
    )


def _actors(masks: Sequence[bytes], state: bool) -> Iterator[Stage]:
    for number, mask in enumerate(masks, 1):
        yield _stage("actor", "toggle_window", mask, f"toggle_window#{number}")
    if state:
        yield _stage("actor", "count_packets", b"", state_size=8)


def _stage(kind: str, name: str, parameters: bytes, label: str = "", state_size: int = 0) -> Stage:
    fragment = FragmentRef("bench", str(_object("stages")), name, state_size)
    return Stage(label or name, kind, name, f"{name}()", fragment, parameters)
