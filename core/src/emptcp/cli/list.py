# SPDX-License-Identifier: Apache-2.0
"""`emptcp list`: print what runs, with counters per stage, like ``nft list ruleset``."""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emptcp.chain.contents import Summary
    from emptcp.chain.counters import Counters
    from emptcp.chain.description import ChainRecord, PolicyRecord, StageRecord
    from emptcp.chain.off import Off
    from emptcp.chain.running import Running
    from emptcp.chain.trips import Count
    from emptcp.cli.wording import Said, Words

SCHEMA = 1

_ENGINES = {"tail": "tail, its chain context per CPU", "tail-metadata": "tail, its chain context in {}"}
_CARRIERS = (
    "XDP metadata, or per CPU for packets without room for it",
    "skb->cb, which has room for the place alone",
)


@dataclass(frozen=True)
class _Told:
    """What a program's stages counted, and what their plugins say of them, by ``table/policy/stage``.

    And what the guard counted, by table and policy.
    """

    counts: dict[str, Counters]
    words: Words
    notes: dict[str, list[str]]
    guard: defaultdict[tuple[str, str], Count]

    @classmethod
    def of(cls, running: Running, said: Said) -> _Told:
        from emptcp.chain import trips

        notes = said.notes.get(running.description.cookie, {})
        return cls(running.counts(), said.words, notes, trips.counts())


def register(groups: Any) -> None:
    """Add the command, and its other name, to the parser's subcommands."""
    parser = groups.add_parser(
        "list",
        aliases=["show"],
        help="print what runs, with counters per stage",
        description="Prints every table with its policies, stages and what each counted.",
    )
    parser.add_argument("table", metavar="TABLE", nargs="?", default="", help="only this table")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument(
        "--file", action="store_true", help="print a policy file that applies to the same state"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from emptcp.chain import running

    with running.everything() as found:
        return _list(arguments, running.tables(found))


def _list(arguments: argparse.Namespace, by_table: dict[str, list[Running]]) -> int:
    from emptcp.chain import off, tables
    from emptcp.cli import wording
    from emptcp.errors import EmptcpError, did_you_mean, quoted

    known = sorted({*by_table, *tables.names()})
    if arguments.table and arguments.table not in known:
        near = did_you_mean(arguments.table, known).capitalize()
        raise EmptcpError(f"there is no table {quoted(arguments.table)}", fix=near or "See: emptcp list")
    chosen = [name for name in known if arguments.table in ("", name)]
    if arguments.file:
        print("\n".join(_file(chosen)), end="")
        return 0
    state, warnings = _off()
    shown = {name: by_table.get(name, []) for name in chosen}
    said = wording.of(shown)
    if arguments.json:
        told = [_table_json(name, found, state, said) for name, found in shown.items()]
        print(json.dumps({"schema": SCHEMA, "off": state.everything, "tables": told}))
    else:
        _print(shown, state, said)
        warnings += [off.EVERYTHING] if state.everything else []
    for warning in [*warnings, *said.warnings]:
        print(f"warning: {warning}", file=sys.stderr)
    if not known and not arguments.json:
        print("nothing runs; start with: emptcp apply FILE", file=sys.stderr)
    return 0


def _file(chosen: list[str]) -> Iterator[str]:
    """Yield the text of the only table in question: a file owns one table."""
    from emptcp.chain import contents, tables
    from emptcp.chain.session import recorded
    from emptcp.errors import EmptcpError
    from emptcp.policy import text

    if len(chosen) != 1:
        raise EmptcpError(
            f"a file holds one table, and there are {len(chosen) or 'none'}",
            fix=f"Name one: {', '.join(chosen)}." if chosen else "Apply a file first.",
        )
    entry = tables.read(chosen[0])
    yield text.table_text(contents.in_force(recorded(entry))) if entry is not None else ""


def _off() -> tuple[Off, list[str]]:
    """Return what is switched off, and a warning where the file that says so is damaged."""
    from emptcp.chain import off
    from emptcp.errors import EmptcpError

    try:
        return off.read(), []
    except EmptcpError as error:
        return off.Off(), [str(error)]


def _print(chosen: dict[str, list[Running]], off: Off, said: Said) -> None:
    for name, found in chosen.items():
        print("\n".join(_table(name, found, said, off)))


def _table(name: str, programs: list[Running], said: Said, off: Off) -> Iterator[str]:
    from emptcp.chain import contents

    yield f"table {name} {{" + (" # off" if name in off.tables else "")
    if not programs:
        yield "  runs nowhere (see: emptcp doctor)"
    for program in programs:
        yield from _program(name, program, said, off)
    for one in contents.summaries(name):
        yield f"  {_summary(one)}"
    yield "}"


def _summary(one: Summary) -> str:
    what = f"{one.key} to {one.type}" if one.type else one.key
    held = f"{one.count} of {one.size} entries" if one.count is not None else "not in use"
    timeout = f", timeout {one.timeout}" if one.timeout else ""
    return f"{one.kind} {one.name}: {what}, {held}{timeout}{', lru' if one.lru else ''}"


def _program(table: str, running: Running, said: Said, off: Off) -> Iterator[str]:
    about, told = running.description, _Told.of(running, said)
    namespace = f" in {about.netns}" if about.netns else ""
    yield f"  {about.hook} of {about.device}{namespace} by {about.backend} ({about.reason})"
    if why := _lost(running):
        yield "    detached: everything is off" if off.everything else f"    not attached any more: {why}"
    if about.engine in _ENGINES:
        yield f"    engine {_ENGINES[about.engine].format(_CARRIERS[about.backend == 'tc'])}"
    yield f"    seen: {_flow(told.counts[''])}{_reasons(told.counts[''])}"
    for policy in about.policies:
        if policy.table == table:
            off_mark = " # off" if running.off(policy) else ""
            count = told.guard[table, policy.name]
            remark = f"guard: {count}" if count.trips else ""
            yield from _stages(f'policy "{policy.name}"', policy, told, off_mark, remark)
    for chain in about.chains:
        if chain.table == table:
            yield from _stages(f'chain "{chain.name}"', chain, told)
    for companion in about.companions:
        yield f"    companion {companion}"


def _lost(running: Running) -> str:
    """Return why the program is not attached any more; empty when it is."""
    if running.link is not None and not running.detached:
        return ""  # told by the link alone: looking for the device takes longer
    from emptcp.chain import decide

    site = decide.site_of(running)
    return decide.why_lost(site) if decide.is_lost(running, site) else ""


def _stages(
    title: str, home: PolicyRecord | ChainRecord, told: _Told, mark: str = "", remark: str = ""
) -> Iterator[str]:
    yield f"    {title} {{{mark}"
    if remark:
        yield f"      {remark}"
    keys = [f"{home.home}/{stage.id}" for stage in home.stages]
    texts = [told.words.get(key, stage.text) for key, stage in zip(keys, home.stages, strict=True)]
    width = max(map(len, texts))
    for number, (key, stage, text) in enumerate(zip(keys, home.stages, texts, strict=True), 1):
        counted = f"{_stage(stage, told.counts[key])}{_label(stage, text)}"
        # `tune` knows a stage by its number; a goto has nothing to tune.
        place, kind = ("-", "") if stage.kind == "goto" else (number, stage.kind)
        yield f"      {place} {kind:8} {text:{width}}  {counted}"
        for note in told.notes.get(key, ()):
            yield f"                 {note}"
    yield "    }"


def _label(stage: StageRecord, text: str) -> str:
    """Return what `tune` calls the stage, where the text does not begin with it."""
    plain = (stage.id.partition("#")[0] == stage.name and text == stage.text) or stage.kind == "goto"
    return "" if plain else f" [{stage.id}]"


def _stage(stage: StageRecord, count: Counters) -> str:
    if stage.kind == "selector":
        return f"{count.packets} packets, {count.matches} matched ({count.bytes} bytes){_reasons(count)}"
    others = {
        "goto": count.matches,
        "return": count.returns,
        "accept": count.accepts,
        "drop": count.drops,
        "redirect": count.redirects,
    }
    verdicts = "".join(f", {name} {number}" for name, number in others.items() if number)
    return f"{_flow(count)}{verdicts}{_reasons(count)}"


def _flow(count: Counters) -> str:
    return f"{count.packets} packets, {count.bytes} bytes"


def _reasons(count: Counters) -> str:
    said = ", ".join(f"{name} {number}" for name, number in count.reasons.items())
    return f", untouched: {said}" if said else ""


def _table_json(name: str, programs: list[Running], off: Off, said: Said) -> dict[str, Any]:
    shown = [_json(running, name, said) for running in programs]
    from emptcp.chain import contents

    sets = [asdict(one) for one in contents.summaries(name)]
    switched = off.everything or name in off.tables
    return {"name": name, "off": switched, "programs": shown, "sets_and_maps": sets}


def _json(running: Running, table: str, said: Said) -> dict[str, Any]:
    about, told = running.description, _Told.of(running, said)
    return {
        "hook": about.hook,
        "device": about.device,
        "netns": about.netns,
        "backend": about.backend,
        "engine": about.engine,
        "reason": about.reason,
        "attached": not _lost(running),
        "seen": asdict(told.counts[""]),
        "companions": list(about.companions),
        "policies": [
            {
                "name": policy.name,
                "off": running.off(policy),
                "guard": asdict(told.guard[table, policy.name]),
                "stages": _stages_json(policy, told),
            }
            for policy in about.policies
            if policy.table == table
        ],
        "chains": [
            {"name": chain.name, "stages": _stages_json(chain, told)}
            for chain in about.chains
            if chain.table == table
        ],
    }


def _stages_json(home: PolicyRecord | ChainRecord, told: _Told) -> list[dict[str, Any]]:
    return [
        {
            "id": stage.id,
            "kind": stage.kind,
            "plugin": stage.plugin,
            "text": stage.text,
            **asdict(told.counts[f"{home.home}/{stage.id}"]),
            "notes": told.notes.get(f"{home.home}/{stage.id}", []),
        }
        for stage in home.stages
    ]
