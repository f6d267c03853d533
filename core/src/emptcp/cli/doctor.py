# SPDX-License-Identifier: Apache-2.0
"""`emptcp doctor`: tell what this machine can do and what is wrong, each problem with its fix."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emptcp.plugins.discovery import Plugin

SCHEMA = 1
OK, MISSING, PROBLEM = "ok", "missing", "problem"


@dataclass(frozen=True)
class Check:
    """One line: ``state`` is ok, missing (a feature; emptcp does without) or problem."""

    name: str
    state: str
    text: str
    fix: str = ""


def register(groups: Any) -> None:
    """Add the command to the parser's subcommands."""
    parser = groups.add_parser(
        "doctor",
        help="tell what this machine can do, and repair leftovers",
        description="Tells what this kernel and libbpf can do, and what is wrong. Exits with 1 on a problem.",
    )
    parser.add_argument("--repair", action="store_true", help="remove leftovers, finish interrupted changes")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    repaired = _repair() if arguments.repair else []
    checks = list(_checks())
    if arguments.json:
        rows = [check.__dict__ for check in checks]
        print(json.dumps({"schema": SCHEMA, "repaired": repaired, "checks": rows}))
    else:
        for line in repaired:
            print(f"repaired: {line}")
        print("\n".join(_lines(checks)))
    return int(any(check.state == PROBLEM for check in checks))


def _repair() -> list[str]:
    from emptcp.chain import health
    from emptcp.lab import cleanup

    return [*health.repair(), *(f"removed the lab {record.name}" for record in cleanup.sweep())]


def _lines(checks: list[Check]) -> Iterator[str]:
    width = max(len(check.name) for check in checks)
    for check in checks:
        yield f"{check.state:8} {check.name:{width}}  {check.text}"
        if check.fix:
            yield f"{'':8} {'':{width}}  {check.fix}"


def _checks() -> Iterator[Check]:
    yield Check("kernel", OK, f"Linux {platform.release()} on {platform.machine()}")
    yield _rights()
    libbpf = _libbpf()
    yield libbpf
    usable = libbpf.state != PROBLEM
    if usable:
        yield _bpffs()
        yield from _features()
    yield _mptcp()
    yield from _plugins()
    if usable and os.geteuid() == 0:
        yield from _leftovers()


def _rights() -> Check:
    if os.geteuid() == 0:
        return Check("rights", OK, "root")
    return Check("rights", PROBLEM, "not root: policies can be checked, not applied", "Run with sudo.")


def _libbpf() -> Check:
    from emptcp import pybpf

    try:
        found = pybpf.library()
    except pybpf.BpfError as error:
        return Check("libbpf", PROBLEM, error.sentence, error.fix)
    lacks = f", lacks {', '.join(found.missing)}" if found.missing else ""
    return Check("libbpf", OK, f"{found.version[0]}.{found.version[1]} ({found.path}){lacks}")


def _bpffs() -> Check:
    from emptcp.chain import pins

    tree = pins.find()
    if tree is not None:
        return Check("bpffs", OK, str(tree.root.parent.parent))
    return Check("bpffs", OK, f"not mounted yet; the first apply mounts it on {pins.run_folder() / 'bpf'}")


def _features() -> Iterator[Check]:
    from emptcp.pybpf import features
    from emptcp.pybpf.feature_table import FEATURES

    for name, feature in FEATURES.items():
        reason = features.reason(name)
        otherwise = feature.otherwise or "what needs it is refused"
        why = f": {reason}" if reason else ""
        yield Check(name, MISSING if reason else OK, f"{feature}{why}; without it {otherwise}")


def _mptcp() -> Check:
    setting = Path("/proc/sys/net/mptcp/enabled")
    if not setting.exists():
        return Check(
            "mptcp", MISSING, "this kernel has no MPTCP of its own; passing traffic can still be steered"
        )
    if setting.read_text(encoding="ascii").strip() == "1":
        return Check("mptcp", OK, "enabled")
    return Check("mptcp", PROBLEM, "switched off", "Run: sysctl -w net.mptcp.enabled=1")


def _plugins() -> Iterator[Check]:
    from emptcp.errors import EmptcpError
    from emptcp.plugins import imports, state

    plugins = state.judged()
    for plugin in plugins:
        if plugin.usable:
            try:
                imports.resolve(plugin, plugins)
                yield from _kernels(plugin)
            except EmptcpError as error:
                yield Check("plugin", PROBLEM, error.sentence, error.fix)
        if plugin.state in ("invalid", "changed"):
            yield Check("plugin", PROBLEM, f"{plugin.id}: {plugin.state}, {plugin.reason}", plugin.fix)


def _kernels(plugin: Plugin) -> Iterator[Check]:
    """Yield the lowest kernel of a plugin, and of its socket companions; a backport may make do with less."""
    from emptcp.plugins import lowest

    parts = {plugin.name: lowest.of_plugin(plugin)}
    for name, found in lowest.of_sockets(plugin).items():
        parts[f"socket companion {name} of {plugin.name}"] = found
    for name, found in parts.items():
        yield Check(
            "lowest_kernel", OK if found.version <= _kernel() else MISSING, f"{name} runs on {found.text}"
        )


def _kernel() -> tuple[int, int]:
    numbers = re.match(r"(\d+)\.(\d+)", platform.release())
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def _leftovers() -> Iterator[Check]:
    from emptcp.chain import health
    from emptcp.errors import EmptcpError
    from emptcp.lab import state as lab
    from emptcp.pybpf.errors import BpfError

    try:
        findings = health.findings()
    except (EmptcpError, BpfError) as error:
        findings = [health.Finding(error.sentence, error.fix)]
    for line in health.switched_off():
        yield Check("off", OK, line)
    for what, fix in health.tripped():
        yield Check("guard", PROBLEM, what, fix)
    for finding in findings:
        yield Check("leftover", PROBLEM, finding.what, finding.fix)
    for record in lab.records():
        if record.stale:
            yield Check("leftover", PROBLEM, f"the lab {record.name} was not taken down", health.REPAIR)
