# SPDX-License-Identifier: Apache-2.0
"""`emptcp explain SUBFLOW`: what each policy in force does to a subflow now, and why not."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emptcp.control.explanation import Elsewhere, PolicySaid, StageSaid
    from emptcp.control.seen import Seen

SCHEMA = 1


def register(groups: Any) -> None:
    """Add the command to the parser's subcommands."""
    parser = groups.add_parser(
        "explain",
        help="tell what each policy does to a subflow, and why not",
        description="Asks copies of the programs in force what they would do to an ACK and to a packet with "
        "data of a subflow, and prints for each policy what its selectors answer, whether its chain runs, "
        "with which verdict, and why not. Changes nothing.",
    )
    parser.add_argument(
        "subflow",
        metavar="SUBFLOW",
        help="as in 10.0.0.1:4000-10.0.0.2:80, or its beginning; or a connection's token: all its subflows",
    )
    parser.add_argument("--netns", default="", metavar="NAME", help="the network namespace")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from emptcp.chain import off, pins, running
    from emptcp.control import explanation, view

    with view.at(arguments.netns) as here:
        chosen = choose(arguments.subflow, here.look().subflows)
        found = [(one, explanation.policies(here, one)) for one in chosen]
        cookie = here.namespace.cookie
    tree = pins.find()
    with running.everything(tree) as programs:
        everything = off.read_or_see(programs).everything
    told = [
        (one, passed, explanation.elsewhere(tree, cookie, passed) if tree is not None else [])
        for one, passed in found
    ]
    if arguments.json:
        print(json.dumps({"schema": SCHEMA, "off": everything, "subflows": [_data(*one) for one in told]}))
        return 0
    if everything:
        print(off.EVERYTHING)
    for one in told:
        print("\n".join(_lines(*one)))
    return 0


def choose(text: str, subflows: Sequence[Seen]) -> list[Seen]:
    """Return the subflow that a text means, or those of the connection whose token it is.

    Raises :class:`EmptcpError` when that is none, or when the text is the beginning of several.
    """
    from emptcp.cli import amounts
    from emptcp.errors import EmptcpError, did_you_mean, quoted

    wanted = text.lower().removeprefix("0x").replace(" > ", "-").replace(">", "-")
    by_name: dict[str, list[Seen]] = {}
    for one in subflows:
        ends = [amounts.endpoint(end) for end in one.ends]
        for name in ("-".join(ends), "-".join(reversed(ends)), amounts.token(one.token)):
            if name:
                by_name.setdefault(name, []).append(one)
    if wanted in by_name:
        return by_name[wanted]
    begins = [name for name in by_name if name.startswith(wanted)] if wanted else []
    if len(begins) == 1:
        return by_name[begins[0]]
    if begins:
        several = ", ".join(begins[:4])
        raise EmptcpError(f"{quoted(text)} is the beginning of several subflows", fix=f"One of: {several}.")
    near = did_you_mean(wanted, list(by_name)).capitalize()
    raise EmptcpError(f"there is no subflow or token {quoted(text)}", fix=near or "See: emptcp connections")


# For the eye


def _lines(one: Seen, passed: Sequence[PolicySaid], others: Sequence[Elsewhere]) -> Iterator[str]:
    from emptcp.cli import amounts

    ends = " > ".join(amounts.endpoint(end) for end in one.ends)
    known = f" of connection {amounts.token(one.token)}" if one.token else ""
    yield f"subflow {ends}{known}: {', '.join(_about(one))}"
    place = ""
    for policy in passed:
        source = f", packets of {policy.source}" if policy.source else ""
        now = f"  {policy.hook} of {policy.device}{source}"
        if now != place:
            yield now
        place = now
        yield from _policy(policy)
    if not passed:
        yield "  no program in force is on its way"
    for other in others:
        yield f"  policy '{other.policy}' of table {other.table} is elsewhere: {', '.join(other.places)}"


def _about(one: Seen) -> Iterator[str]:
    from emptcp.cli.connections import actions

    if one.kernel is None:
        yield "no socket here"
    else:
        yield one.kernel.state
        yield f"backup by {one.backup_by}" if one.backup_by else "not backup"
    if one.path:
        yield f"path {one.path}"
    if one.kernel is not None and one.kernel.state == "joining":
        yield "its join is not answered yet, and until then actors leave its socket alone"
    for action in actions(one):
        yield f"last: {action['actor']} {action['what']} ({action['whose']})"


def _policy(policy: PolicySaid) -> Iterator[str]:
    from emptcp.cli.columns import aligned
    from emptcp.control.explanation import PACKETS

    verdicts = dict(zip(PACKETS, policy.verdicts, strict=True))
    runs = ", ".join(f"{packet} {verdict or 'does not'}" for packet, verdict in verdicts.items())
    how = f"does not run: {policy.why_not}" if policy.why_not else f"runs: {runs}"
    yield f"    policy '{policy.policy}' of table {policy.table} {how}"
    for line in aligned([_stage(stage) for stage in policy.stages]):
        yield f"      {line}"


def _stage(stage: StageSaid) -> tuple[str, ...]:
    from emptcp.control.explanation import PACKETS

    said = [_said(one.answer, one.verdict) for one in stage.said]
    same = len(set(said)) == 1
    told = (
        said[0] if same else ", ".join(f"{packet} {word}" for packet, word in zip(PACKETS, said, strict=True))
    )
    reasons = dict.fromkeys(reason for one in stage.said for reason in one.reasons)
    untouched = f" (untouched: {', '.join(reasons)})" if reasons else ""
    counted = ", ".join(f"{name} {count}" for name, count in stage.counts.reasons.items())
    so_far = f"so far {stage.counts.packets} packets" + (f", untouched: {counted}" if counted else "")
    return stage.text, told + untouched, so_far


def _said(answer: bool | None, verdict: str) -> str:
    if verdict:
        return verdict
    return "-" if answer is None else "yes" if answer else "no"


# For programs


def _data(one: Seen, passed: Sequence[PolicySaid], others: Sequence[Elsewhere]) -> dict[str, Any]:
    from emptcp.cli import amounts
    from emptcp.cli.connections import actions

    return {
        "endpoints": [[str(address), port] for address, port in one.ends],
        "token": amounts.token(one.token) or None,
        "state": one.kernel.state if one.kernel is not None else None,
        "path": one.path or None,
        "backup_by": one.backup_by or None,
        "last_actions": actions(one),
        "policies": [_policy_data(policy) for policy in passed],
        "elsewhere": [asdict(other) for other in others],
    }


def _policy_data(policy: PolicySaid) -> dict[str, Any]:
    from emptcp.control.explanation import PACKETS

    def by_packet(values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(PACKETS, values, strict=True)) if values else {}

    return {
        "table": policy.table,
        "policy": policy.policy,
        "hook": policy.hook,
        "device": policy.device,
        "source": policy.source or None,
        "off": policy.off,
        "runs": by_packet(policy.runs),
        "verdict": by_packet([verdict or None for verdict in policy.verdicts]),
        "why_not": policy.why_not or None,
        "stages": [
            {
                "id": stage.id,
                "kind": stage.kind,
                "text": stage.text,
                "answer": by_packet([one.answer for one in stage.said]),
                "verdict": by_packet([one.verdict or None for one in stage.said]),
                "reasons": by_packet([list(one.reasons) for one in stage.said]),
                "counts": asdict(stage.counts),
            }
            for stage in policy.stages
        ],
    }
