# SPDX-License-Identifier: Apache-2.0
"""``emptcp lab run|up|down|exec|list``: try policies between two hosts made of namespaces."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path as File
from typing import TYPE_CHECKING, Any

from emptcp.errors import EmptcpError, did_you_mean

if TYPE_CHECKING:
    from emptcp.lab.report import Verdict
    from emptcp.lab.scenario import Run
    from emptcp.lab.state import Record

SCHEMA = 1
SCENARIOS = {"two-path": "one connection over two paths; a policy makes one of them backup and gives it back"}
USE_CASES = ("heterogeneous", "overflow", "small-flows", "shared-bottleneck", "multi-tenant")
PICTURE = "emptcp-{}.svg"
RATE, RTT = "100mbit", "20ms,50ms"
DURATION, CASE_SECONDS, ROUNDS = "20s", "6s", 7

RUN_HELP = """\
Builds two hosts and two paths, lets host a send to host b over one MPTCP connection, applies a policy file in
mid-transfer, removes it later, and shows what that did: live, as a table, and as a picture. Nothing stays.

A use case is measured with and without emptcp in turns, over a grid that is fixed: heterogeneous (the
scheduler ecf), overflow (the scheduler weighted), small-flows and shared-bottleneck (the path manager
gradual), multi-tenant (the controller spread, on a hypervisor). It takes minutes; --quick measures one
point once."""

UP_HELP = """\
Builds two hosts, a and b, and leaves them standing to play with. Addresses are 10.0.N.1 (host a) and 10.0.N.2
(host b) on path N; fd00:0:0:N::1 and ::2 with IPv6. Remove it with: emptcp lab down"""


def register(groups: Any) -> None:
    """Add the command group to the parser's subcommands."""
    parser = groups.add_parser("lab", help="try policies between two hosts made of namespaces")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _register_run(commands)
    _register_up(commands)
    _register_down(commands)
    _register_exec(commands)
    _register_list(commands)
    _register_page(commands)


def _register_run(commands: Any) -> None:
    parser = commands.add_parser("run", help="run a scenario and show what it did", description=RUN_HELP)
    parser.add_argument("scenario", metavar="SCENARIO", help=", ".join((*SCENARIOS, *USE_CASES)))
    _add_path_options(parser)
    text = f"of the whole run ({DURATION}), or of each measurement of a use case ({CASE_SECONDS})"
    parser.add_argument("--duration", metavar="TIME", help=text)
    parser.add_argument("--rounds", type=_rounds, help=f"of a use case ({ROUNDS}); 6 for a 95 %% interval")
    parser.add_argument("--quick", action="store_true", help="of a use case, one point and one round")
    parser.add_argument(
        "--note", default="", metavar="TEXT", help="what a use case's JSON says of the machine"
    )
    policy = parser.add_mutually_exclusive_group()
    policy.add_argument("--policy", type=File, metavar="FILE", help="instead of the scenario's own")
    policy.add_argument("--no-policy", action="store_true", help="the same traffic, untouched, to compare")
    picture = parser.add_mutually_exclusive_group()
    picture.add_argument(
        "--picture",
        type=File,
        metavar="FILE",
        help=f"SVG, PNG or PDF by its ending ({PICTURE.format('SCENARIO')})",
    )
    picture.add_argument("--no-picture", action="store_true", help="draw none")
    parser.add_argument("--json", action="store_true", help="print JSON; progress goes to standard error")
    parser.set_defaults(run=_run)


def _register_up(commands: Any) -> None:
    parser = commands.add_parser("up", help="build a lab and leave it standing", description=UP_HELP)
    parser.add_argument("name", metavar="NAME", nargs="?", default="lab", help="the lab's name (lab)")
    _add_path_options(parser)
    parser.add_argument(
        "-6", dest="family", action="store_const", const=6, default=4, help="announce IPv6 addresses"
    )
    parser.set_defaults(run=_up)


def _register_down(commands: Any) -> None:
    parser = commands.add_parser("down", help="remove labs, and what crashed ones left")
    parser.add_argument("names", metavar="NAME", nargs="*", help="labs to remove (all that stand or crashed)")
    parser.set_defaults(run=_down)


def _register_exec(commands: Any) -> None:
    parser = commands.add_parser("exec", help="run a command in a host of a lab")
    parser.add_argument("--lab", metavar="NAME", help="which lab (the only one)")
    parser.add_argument("host", metavar="HOST", help="a or b")
    # Not named `command`: that is the one of emptcp itself.
    parser.add_argument("words", metavar="COMMAND", nargs=argparse.REMAINDER, help="with its arguments")
    parser.set_defaults(run=_exec)


def _register_list(commands: Any) -> None:
    parser = commands.add_parser("list", help="print the labs there are")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_list)


def _register_page(commands: Any) -> None:
    parser = commands.add_parser(
        "page", help="print the page of use cases from what `lab run --json` printed"
    )
    parser.add_argument("files", metavar="FILE", nargs="+", type=File, help="with the JSON of a use case")
    parser.set_defaults(run=_page)


def _add_path_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rate", default=RATE, metavar="RATE[,RATE..]", help=f"of the paths in turn ({RATE})"
    )
    parser.add_argument("--rtt", default=RTT, metavar="TIME[,TIME..]", help=f"of the paths in turn ({RTT})")
    parser.add_argument(
        "--link", default="auto", metavar="KIND", help="auto, netem, relay, or veth: no rate, no delay (auto)"
    )


def _run(arguments: argparse.Namespace) -> int:
    from emptcp.lab import options, process, report, scenario, steering, topology
    from emptcp.lab.progress import Progress

    _known(arguments.scenario, (*SCENARIOS, *USE_CASES), "scenario")
    if arguments.scenario in USE_CASES:
        return _compare(arguments)
    paths = options.paths(arguments.rate, arguments.rtt)
    if len(paths) != 2:
        raise EmptcpError(
            f"two-path has 2 paths, not {len(paths)}", fix="Give two rates and two RTTs at most."
        )
    timeline = scenario.Timeline.lasting(options.seconds(arguments.duration or DURATION))
    policy = None if arguments.no_policy else (arguments.policy or scenario.POLICY)
    if policy is not None:
        steering.LabTable("lab").table(policy)
    picture = _picture(arguments)
    process.go_first()
    progress = Progress(sys.stderr if arguments.json else sys.stdout)
    with _ended_by_signals(), topology.two_hosts(paths, name="two-path", link=arguments.link) as lab:
        table = steering.LabTable(lab.name) if policy else None
        progress.begin(lab, timeline, policy)
        run = scenario.run_two_path(lab, timeline, progress, table, policy or scenario.POLICY)
    return _show(run, report.verdict(run), picture, arguments.json)


def _compare(arguments: argparse.Namespace) -> int:
    """Measure a use case. Its grid is fixed, so paths and policies of one's own are refused."""
    from emptcp.lab import comparison, comparison_picture, comparison_report, grid, options, process, steering

    if arguments.policy or arguments.no_policy or (arguments.rate, arguments.rtt) != (RATE, RTT):
        raise EmptcpError(
            f"the paths and the policy of {arguments.scenario} are fixed",
            fix="Leave --rate, --rtt and --policy out, or run: emptcp lab run two-path",
        )
    use_case = grid.USE_CASES[arguments.scenario]
    picture = _picture(arguments)
    points = (use_case.quick,) if arguments.quick else use_case.points
    rounds = arguments.rounds or (1 if arguments.quick else ROUNDS)
    plan = comparison.Plan(points, rounds, options.seconds(arguments.duration or CASE_SECONDS))
    process.go_first()
    progress = sys.stderr if arguments.json else sys.stdout
    with _ended_by_signals():
        found = list(
            comparison.compare(
                use_case,
                plan,
                steering.controlled,
                arguments.link,
                lambda line: print(line, file=progress, flush=True),
            )
        )
    measured = [one for _, one in found]
    answer = comparison_report.as_json(use_case, plan, found[0][0], measured, arguments.note)
    if picture is not None:
        comparison_picture.draw(answer, picture)
    print(json.dumps(answer, indent=1) if arguments.json else f"\n{comparison_report.table(answer)}")
    return 0


def _page(arguments: argparse.Namespace) -> int:
    from emptcp.lab import comparison_report

    answers = [json.loads(file.read_text(encoding="utf-8")) for file in arguments.files]
    print(comparison_report.page(answers), end="")
    return 0


def _rounds(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError("write a number from 1 to 1000")
    return int(text)


def _show(run: Run, verdict: Verdict, picture: File | None, as_json: bool) -> int:
    from emptcp.lab import picture as drawing
    from emptcp.lab import report

    if picture is not None:
        drawing.draw(run, picture)
    if as_json:
        print(json.dumps({**report.as_json(run), "picture": str(picture) if picture else None}, indent=1))
    else:
        print(f"\n{report.table(run)}\n\n{verdict.statement}")
        if picture is not None:
            print(f"Picture: {picture.resolve()}")
    return 1 if verdict.held is False else 0


def _picture(arguments: argparse.Namespace) -> File | None:
    """Where to draw; checked before 20 seconds are spent on a run that can't be drawn."""
    from emptcp.lab import picture

    if arguments.no_picture:
        return None
    if arguments.picture is None and not picture.available():
        print("No picture will be drawn: that takes pip install 'emptcp[lab]'", file=sys.stderr)
        return None
    file = arguments.picture or File(PICTURE.format(arguments.scenario))
    picture.check(file)
    return file


def _up(arguments: argparse.Namespace) -> int:
    from emptcp.lab import options, topology

    paths = options.paths(arguments.rate, arguments.rtt)
    with _ended_by_signals():
        lab = topology.keep(arguments.name, paths, link=arguments.link, family=arguments.family)
    print(f"Lab {lab.name} stands, linked by {lab.link}. Namespaces: {lab.a.netns}, {lab.b.netns}")
    for path in lab.paths:
        ends = f"a {path.a.address(lab.family)}, b {path.b.address(lab.family)}"
        print(f"  {path.name}  {path.rate / 1e6:g} Mbit/s  RTT {path.rtt * 1e3:g} ms  {ends}")
    print(_HINTS.format(python=sys.executable, address=lab.paths[0].b.address(lab.family), netns=lab.a.netns))
    return 0


_HINTS = """\
Let host b receive and host a send over MPTCP, look, steer, end:
  emptcp lab exec b {python} -P -m emptcp.lab.traffic receive :: 5001 &
  emptcp lab exec a {python} -P -m emptcp.lab.traffic send {address} 5001 &
  emptcp lab exec a ss -tiM
  emptcp apply FILE --netns {netns}
  emptcp lab down"""


def _down(arguments: argparse.Namespace) -> int:
    from emptcp.lab import cleanup

    gone = [cleanup.down(name) for name in arguments.names] if arguments.names else cleanup.down_all()
    for record in gone:
        print(f"removed lab {record.name}{' (left over)' if record.stale else ''}")
    if not gone:
        print("there was no lab to remove")
    return 0


def _exec(arguments: argparse.Namespace) -> int:
    from emptcp.lab.host import Host

    record = _chosen(arguments.lab)
    hosts = dict(zip("ab", record.namespaces, strict=True))
    _known(arguments.host, hosts, "host")
    words = arguments.words[1:] if arguments.words[:1] == ["--"] else arguments.words
    if not words:
        raise EmptcpError("there is no command to run", fix="Give one, such as: emptcp lab exec a ip address")
    command = Host(arguments.host, hosts[arguments.host]).command(words)
    os.execvp(command[0], command)


def _chosen(name: str | None) -> Record:
    from emptcp.lab import state

    if name is not None:
        return state.find(name)
    there = [record for record in state.records() if not record.stale]
    if len(there) != 1:
        names = ", ".join(record.name for record in there)
        raise EmptcpError(
            f"there are {len(there)} labs: {names}" if there else "there is no lab",
            fix="Say which: emptcp lab exec --lab NAME .." if there else "Build one: emptcp lab up",
        )
    return there[0]


def _list(arguments: argparse.Namespace) -> int:
    from emptcp.lab import state

    records = state.records()
    if arguments.json:
        print(json.dumps({"schema": SCHEMA, "labs": [_row(record) for record in records]}, indent=1))
    elif not records:
        print("there is no lab; build one: emptcp lab up")
    for record in records if not arguments.json else ():
        shape = ", ".join(f"{path['rate'] / 1e6:g} Mbit/s {path['rtt'] * 1e3:g} ms" for path in record.paths)
        print(f"{record.name}  {_state(record)}  {record.link}  {' '.join(record.namespaces)}  {shape}")
    return 0


def _row(record: Record) -> dict[str, Any]:
    return {
        "name": record.name,
        "state": _state(record),
        "link": record.link,
        "hosts": dict(zip("ab", record.namespaces, strict=True)),
        "paths": list(record.paths),
    }


def _state(record: Record) -> str:
    """``up`` is kept, ``running`` a command's; ``left over``: that died; ``broken``: the link process did."""
    if record.stale:
        return "left over"
    if not all(process.alive for process in record.processes):
        return "broken"
    return "up" if record.kept else "running"


def _known(word: str, known: Iterable[str], what: str) -> None:
    if word not in known:
        fix = did_you_mean(word, known).capitalize() or f"There are: {', '.join(known)}."
        raise EmptcpError(f"there is no {what} '{word}'", fix=fix)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let a closed terminal or a kill end the block as Ctrl-C does, so that it cleans up."""
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
