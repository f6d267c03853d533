# SPDX-License-Identifier: Apache-2.0
"""How long changes take: a subflow's backup bit, by emptcp and by others; entries, tables; the command."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from emptcp.pybpf import Map
from emptcp_bench.accuracy import own_tables
from emptcp_bench.answer import Answer, Row
from emptcp_bench.control import others, ours, running
from emptcp_bench.measure import Spread
from emptcp_bench.progress import Progress

Turn = Callable[[], float]

SYSTEM_CALL, MEMORY = "set backup: an entry, by one system call", "set backup: a parameter, in mapped memory"
ENDPOINT = "set backup: `ip mptcp endpoint change`, until MP_PRIO leaves"
MPTCPD = "set backup: mptcpd's plugin, from its call until MP_PRIO leaves"
HELP, LIST = "`emptcp --help`", "`emptcp plugins list`"
UPDATES = 1000

_HOW = f"""\
Microseconds; all take turns, and each looks whether what was asked for came about. The first rows are from
the call in Python to the value in the kernel's map (the mean of {ours.REPEAT} calls), and on until a packet
that passes then says it (run by BPF_PROG_TEST_RUN). Others are asked on a live connection between two hosts
on this machine: from the call until MP_PRIO leaves the host, by the kernel's time stamp of that packet. `ip`
is a process of its own; mptcpd's plugin is asked within mptcpd. Commands are whole processes, with their
modules compiled before."""


def measure(rounds: int, quick: bool) -> Answer:
    """Measure everything in turns."""
    progress = Progress(rounds)
    with own_tables(), ExitStack() as stack:
        turns = _turns(stack)
        times: dict[str, list[float]] = {name: [] for name in turns}
        for turn in () if quick else turns.values():
            turn()
        for _ in range(rounds):
            for name, turn in turns.items():
                times[name].append(turn())
            progress.step("all once")
    rows: list[Row] = [{"what": name, "us": Spread.of(values)} for name, values in times.items()]
    if why := others.missing():
        rows.append({"what": f"{MPTCPD} (left out: {why})", "us": None})
    return Answer("control", _HOW, rounds, rows, _figures(times))


def _turns(stack: ExitStack) -> dict[str, Turn]:
    entry, said = stack.enter_context(ours.by_system_call())
    memory, memory_said = stack.enter_context(ours.by_memory())
    by_plugin = {} if others.missing() else {MPTCPD: stack.enter_context(others.mptcpd())}
    return {
        SYSTEM_CALL: entry,
        f"{SYSTEM_CALL}, and a packet": said,
        MEMORY: memory,
        f"{MEMORY}, and a packet": memory_said,
        ENDPOINT: stack.enter_context(others.endpoint()),
        **by_plugin,
        **_updates(stack),
        **stack.enter_context(running.changes()),
        **_commands(stack),
    }


def _updates(stack: ExitStack) -> dict[str, Turn]:
    """Return updates of a hash table alone, one by one and in one batch; per entry."""
    made = stack.enter_context(Map.create("hash", 36, 16, 4 * UPDATES, name="bench_updates"))
    pairs = [(n.to_bytes(36, "little"), bytes(16)) for n in range(UPDATES)]

    def single() -> float:
        began = time.perf_counter()
        for key, value in pairs:
            made.update(key, value)
        return 1e6 * (time.perf_counter() - began) / UPDATES

    def batch() -> float:
        began = time.perf_counter()
        made.update_batch(pairs)
        return 1e6 * (time.perf_counter() - began) / UPDATES

    return {"a map's update, one by one": single, f"a map's update, {UPDATES:,} in a batch": batch}


def _commands(stack: ExitStack) -> dict[str, Turn]:
    """Return whole processes, with a cache of bytecode such as pip leaves, whatever this environment says."""
    cache = stack.enter_context(tempfile.TemporaryDirectory(prefix="emptcp-bytecode-"))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = cache
    return {HELP: _command(environment, "--help"), LIST: _command(environment, "plugins", "list")}


def _command(environment: Mapping[str, str], *words: str) -> Turn:
    command = [sys.executable, "-P", "-m", "emptcp.cli.main", *words]

    def turn() -> float:
        began = time.perf_counter()
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
        return 1e6 * (time.perf_counter() - began)

    return turn


def _figures(times: dict[str, list[float]]) -> dict[str, float | None]:
    median = {name: Spread.of(values).median for name, values in times.items()}
    mptcpd = median.get(MPTCPD)
    (stages,) = (value for name, value in median.items() if name.startswith(f"apply {running.STAGES} stages"))
    (batch,) = (value for name, value in median.items() if name.startswith(f"add {running.ENTRIES:,}"))
    return {
        "mptcpd_over_system_call": mptcpd / median[SYSTEM_CALL] if mptcpd else None,
        "mptcpd_over_mapped_memory": mptcpd / median[MEMORY] if mptcpd else None,
        "apply_20_stages_ms": stages / 1000,
        "set_10000_entries_ms": batch / 1000,
        "help_s": median[HELP] / 1e6,
        "plugins_list_s": median[LIST] / 1e6,
    }
