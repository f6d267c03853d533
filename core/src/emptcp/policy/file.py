# SPDX-License-Identifier: Apache-2.0
"""The file format of policies: TOML to :class:`emptcp.policy.model.Table`.

Checked here: what the text alone can tell. Whether a selector, an actor or a device exists is not.
The keys are published in ``docs/reference/policy-file.schema.json``.
"""

from __future__ import annotations

import os

from emptcp.errors import EmptcpError, quoted
from emptcp.policy import document, model, requirement, values, when
from emptcp.policy.check import LARGEST_TABLE, check, check_guard_window
from emptcp.policy.document import Section
from emptcp.policy.requirement import Requirement

TOP_KEYS = (
    *("table", "requires", "guard_window", "engine", "tail", "exact"),
    *("policy", "chain", "set", "map", "path", "controller"),
)
TAIL_KEYS = ("carrier",)
POLICY_KEYS = ("name", "hook", "dev", "netns", "backend", "optional", "unsafe", "when", "do")
CHAIN_KEYS = ("do",)
SET_KEYS = ("key", "size", "timeout", "lru", "entries")
MAP_KEYS = ("key", "type", "size", "timeout", "lru", "entries")
PATH_KEYS = ("dev", "local", "links", "rate", "cost", "quota")
CONTROLLER_KEYS = ("name", "use", "when", "paths", "netns", "interval", "steers", "on_failure", "with")


def load(path: str | os.PathLike[str]) -> model.Table:
    """Read a policy file.

    Raises :class:`EmptcpError` with line and column for whatever is wrong with the text.
    """
    return _checked(document.read(path))


def loads(text: str, source: str = "") -> model.Table:
    """Read a policy file's text; ``source`` is its name in errors."""
    return _checked(document.parse(text, source))


def _checked(top: Section) -> model.Table:
    table = _table(top)
    check(table)
    return table


def _table(top: Section) -> model.Table:
    top.refuse_unknown(TOP_KEYS)
    top.require("table", 'Begin the file with the name of its table, as in: table = "home".')
    name, engine = top.text("table"), _engine(top)
    policies = (_policy(section, name, engine) for section in top.sections("policy", "policy"))
    return model.Table(
        name=name,
        policies=tuple(policies),
        chains=tuple(_chain(*named) for named in top.named_sections("chain", "chain")),
        sets=tuple(_set(*named) for named in top.named_sections("set", "set")),
        maps=tuple(_map(*named) for named in top.named_sections("map", "map")),
        controllers=tuple(_controller(section) for section in top.sections("controller", "controller")),
        paths=tuple(_path(*named) for named in top.named_sections("path", "path")),
        engine=engine,
        exact=top.flag("exact"),
        requires=_requires(top),
        guard_window=_guard_window(top),
        source=top.source,
    )


def _requires(top: Section) -> tuple[Requirement, ...]:
    if "requires" not in top:
        return ()
    if isinstance(top.raw("requires"), str):
        return (requirement.parse(top.text("requires"), top.place("requires")),)
    texts = enumerate(top.texts("requires"))
    return tuple(requirement.parse(text, top.place("requires", index)) for index, text in texts)


def _guard_window(top: Section) -> int | None:
    """Return how long a new table is watched for harm, in nanoseconds."""
    if "guard_window" not in top:
        return None
    window = _time(top, "guard_window")
    check_guard_window(window, top.place("guard_window"))
    return window


def _engine(top: Section) -> str:
    engine = top.choice("engine", model.ENGINES, "fused")
    if "tail" not in top:
        return engine
    section = top.table("tail")
    section.refuse_unknown(TAIL_KEYS)
    carrier = section.choice("carrier", model.CARRIERS, "per-cpu")
    if engine != "tail":
        fix = 'Write engine = "tail", or remove it.'
        raise top.error("'tail' is of the engine 'tail', which the table does not ask for", "tail", fix=fix)
    return model.TAIL_METADATA if carrier == "metadata" else engine


def _policy(section: Section, table: str, engine: str) -> model.Policy:
    section.require("name", 'Add name = "..".')
    section.what = f"policy {quoted(section.text('name'))}"
    section.refuse_unknown(POLICY_KEYS)
    section.require("hook", 'Add hook = "ingress" or "egress".')
    section.require("dev", 'Add dev = "eth0", or a list of names and globs.')
    return model.Policy(
        name=section.text("name"),
        table=table,
        hooks=section.choices("hook", model.HOOKS),
        devices=section.texts("dev"),
        when=_when(section),
        do=_do(section),
        netns=section.spelled("netns") if "netns" in section else None,
        backend=section.choice("backend", model.BACKENDS, "auto"),
        optional=section.flag("optional"),
        unsafe=section.flag("unsafe"),
        engine=engine,
        where=section.place("name"),
    )


def _when(section: Section) -> model.Expression | None:
    if "when" not in section:
        return None
    return when.parse(section.text("when"), section.locate("when"))


def _do(section: Section) -> tuple[model.Step, ...]:
    section.require("do", 'Add do = ["ACTOR(..)"], or do = ["goto CHAIN"].')
    steps = section.texts("do")
    if not steps:
        raise section.error(f"'do' of {section.what} is empty", "do", fix="Put at least one actor into it.")
    if isinstance(section.raw("do"), str):
        return (when.parse_step(steps[0], section.locate("do")),)
    return tuple(when.parse_step(step, section.locate("do", index)) for index, step in enumerate(steps))


def _chain(name: str, section: Section) -> model.Chain:
    section.refuse_unknown(CHAIN_KEYS)
    return model.Chain(name, _do(section), section.where)


def _set(name: str, section: Section) -> model.Set:
    section.refuse_unknown(SET_KEYS)
    section.require("key", 'Add key = "subflow", or another key that a plugin provides.')
    entries = section.texts("entries") if "entries" in section else None
    return model.Set(
        name,
        section.text("key"),
        _size(section),
        _time(section, "timeout"),
        section.flag("lru"),
        entries,
        section.where,
    )


def _map(name: str, section: Section) -> model.Map:
    section.refuse_unknown(MAP_KEYS)
    section.require("key", 'Add key = "subflow", or another key that a plugin provides.')
    section.require("type", 'Add the type of the values, as in: type = "rate".')
    kind = section.text("type")
    try:
        values.of(kind)
    except EmptcpError as error:
        raise section.error(error.sentence, "type", fix=error.fix) from None
    return model.Map(
        name,
        section.text("key"),
        kind,
        _size(section),
        _time(section, "timeout"),
        section.flag("lru"),
        _entries(section),
        section.where,
    )


def _size(section: Section) -> int:
    return section.number("size", 65536, least=1, most=LARGEST_TABLE)


def _entries(section: Section) -> tuple[tuple[str, str], ...] | None:
    if "entries" not in section:
        return None
    table = section.table("entries")
    return tuple((key, table.spelled(key)) for key in table.names())


def _time(section: Section, key: str) -> int:
    """Return a time in nanoseconds; 0 when it is not given."""
    if key not in section:
        return 0
    try:
        return int(values.of("time").parse(section.spelled(key)))
    except EmptcpError as error:
        raise section.error(f"'{key}' of {section.what}: {error.sentence}", key, fix=error.fix) from None


def _path(name: str, section: Section) -> model.Path:
    section.refuse_unknown(PATH_KEYS)
    return model.Path(
        name,
        section.texts("dev"),
        _spelled(section, "local", "ipaddr"),
        section.texts("links"),
        _spelled(section, "rate", "rate"),
        _spelled(section, "cost", "int"),
        _spelled(section, "quota", "size"),
        section.where,
    )


def _spelled(section: Section, key: str, kind: str) -> str:
    """Return a value as it is written, after a look whether it is one of parameter type ``kind``."""
    if key in section:
        try:
            values.of(kind).parse(section.spelled(key))
        except EmptcpError as error:
            raise section.error(f"'{key}' of {section.what}: {error.sentence}", key, fix=error.fix) from None
    return section.spelled(key)


def _controller(section: Section) -> model.Controller:
    section.require("name", 'Add name = "..".')
    section.what = f"controller {quoted(section.text('name'))}"
    section.refuse_unknown(CONTROLLER_KEYS)
    section.require("use", 'Add use = "..", the kind of controller.')
    return model.Controller(
        section.text("name"),
        section.text("use"),
        _when(section),
        section.texts("paths"),
        _own_parameters(section),
        section.spelled("netns") if "netns" in section else None,
        _spelled(section, "interval", "time"),
        section.choice("steers", model.STEERED, "us"),
        section.choice("on_failure", model.ON_FAILURE, "keep"),
        section.place("name"),
    )


def _own_parameters(section: Section) -> tuple[model.Keyword, ...]:
    """Return what stands under ``with``: the controller's own parameters."""
    if "with" not in section:
        return ()
    table = section.table("with")
    return tuple(_own_parameter(table, key) for key in table.names())


def _own_parameter(table: Section, key: str) -> model.Keyword:
    value = table.raw(key)
    place = table.place(key)
    if isinstance(value, list):
        items = (model.Scalar(text, place) for text in table.spelled_items(key))
        return model.Keyword(key, model.Listing(tuple(items), place), place)
    return model.Keyword(key, model.Scalar(table.spelled(key), place), place)
