# SPDX-License-Identifier: Apache-2.0
"""``emptcp trace``: run a policy over a capture, packet by packet, without attaching anything."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emptcp.chain.plan import BoundPolicy
    from emptcp.policy.model import Table
    from emptcp.trace.run import Runner

DESCRIPTION = """\
Runs every packet of a capture (pcap or pcapng; Ethernet, Linux cooked, PPP or raw IP) through the policies
of a file, in the kernel but attached to nothing, and shows what matched, what changed and why not."""

# The kernel refuses a trial of less than a frame with an IP header.
_SHORTEST = 14 + 40


def register(groups: Any) -> None:
    """Add the command to the parser's ``groups``."""
    parser = groups.add_parser(
        "trace", help="run a policy over a capture, packet by packet", description=DESCRIPTION
    )
    parser.add_argument("file", metavar="FILE", help="the capture")
    parser.add_argument("--policy", metavar="P", required=True, help="the policy file")
    parser.add_argument(
        "--hook",
        choices=("ingress", "egress"),
        help="run the policies of this hook (default: the only one used)",
    )
    engines = ("fused", "tail", "tail-metadata")
    parser.add_argument("--engine", choices=engines, help="default: what the file says")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line and packet")
    parser.add_argument(
        "--write", metavar="OUT", help="write the packets as they came out, dropped ones left out"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Trace the capture and print a line per packet."""
    from emptcp.trace.report import table
    from emptcp.trace.run import trace

    with policy_runner(arguments.policy, arguments.hook, arguments.engine) as runner:
        packets = trace(arguments.file, runner, arguments.write)
        lines = (json.dumps(one.as_json()) for one in packets) if arguments.json else table(packets)
        for line in lines:
            print(line)
    return 0


@contextmanager
def policy_runner(path: str, hook: str | None, engine: str | None) -> Iterator[Runner]:
    """Yield what runs one packet through the policies of a file, loaded but attached to nothing.

    A program is loaded for each kind of link that occurs. Raises EmptcpError for a file, hook or engine
    that can't be used, and BpfError when the kernel refuses a program.
    """
    from emptcp.chain.dryrun import Runner as DryRunner
    from emptcp.packet.layers import Link
    from emptcp.policy import file
    from emptcp.pybpf.errors import BpfError
    from emptcp.trace.run import TRUNCATED, RunResult, Verdict

    table = file.load(path)
    hook = hook or _only_hook(table, path)
    policies = _bound(table, hook, path)
    backend = _backend(table, hook, policies)
    with ExitStack() as opened:
        runners: dict[str, DryRunner] = {}

        def run_packet(packet: bytes, link: Link) -> RunResult:
            if link not in runners:
                runners[link] = opened.enter_context(
                    DryRunner(policies, hook, backend, link, engine or table.engine)
                )
            try:
                result = runners[link].run(packet)
            except BpfError:
                if len(packet) >= _SHORTEST:
                    raise
                return RunResult("pass", packet, reason=TRUNCATED)
            verdicts: dict[str, Verdict] = {"drop": "drop", "redirect": "redirect"}
            verdict = verdicts.get(result.verdict, "pass")
            return RunResult(verdict, result.data, result.matched, result.reason, result.duration_ns)

        yield run_packet


def _only_hook(table: Table, path: str) -> str:
    from emptcp.errors import EmptcpError

    hooks = sorted({hook for policy in table.policies for hook in policy.hooks} & {"ingress", "egress"})
    if len(hooks) != 1:
        raise EmptcpError(
            f"a trace runs the policies of one hook, those of '{path}' use {' and '.join(hooks) or 'none'}",
            fix="choose with --hook ingress or --hook egress",
        )
    return hooks[0]


def _bound(table: Table, hook: str, path: str) -> list[BoundPolicy]:
    from emptcp.chain import placement
    from emptcp.chain.bind import bind
    from emptcp.errors import EmptcpError
    from emptcp.hooks import namespaces
    from emptcp.plugins.catalog import Catalog

    catalog, devices = Catalog.of_enabled(), placement.indexes(namespaces.resolve())
    bound = [bind(table, policy, hook, catalog, devices) for policy in table.policies if hook in policy.hooks]
    if not bound:
        raise EmptcpError(f"no policy of '{path}' is for {hook}", fix="choose the other hook with --hook")
    return bound


def _backend(table: Table, hook: str, bound: Sequence[BoundPolicy]) -> str:
    """Return ``tc`` where the policies can only run there, else ``xdp``, as an apply would choose."""
    wanted = {policy.backend for policy in table.policies if hook in policy.hooks}
    limited = any("xdp" not in stage.backends for policy in bound for stage in policy.everything)
    return "tc" if hook == "egress" or "tc" in wanted or limited else "xdp"
