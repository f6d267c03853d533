# SPDX-License-Identifier: Apache-2.0
"""Named chains: which of them a policy may come to, by ``goto`` at an end or by an actor that chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from emptcp.errors import EmptcpError, did_you_mean, quoted
from emptcp.plugins.catalog import BoundStage, Catalog
from emptcp.policy import model, values

Chosen = Callable[[model.StageSpec], Iterable[str]]
"""Tells the chains that are given to a stage as parameters."""


def home(table: str, chain: str) -> str:
    """Return what the names of a chain's stages begin with."""
    return f"{table}/@{chain}"


def number(table: model.Table, name: str) -> int:
    """Return the number by which fragments know a chain: from 1, in the order of the file."""
    return 1 + [chain.name for chain in table.chains].index(name)


def reachable(table: model.Table, do: tuple[model.Step, ...], chosen: Chosen) -> list[model.Chain]:
    """Return the chains that ``do`` may come to, each before those that it leads to.

    Raises :class:`EmptcpError` for a chain that leads back to itself.
    """
    known = {chain.name: chain for chain in table.chains}
    done: list[model.Chain] = []

    def visit(names: Iterable[str], way: tuple[str, ...]) -> None:
        for name in names:
            if name in way:
                circle = " > ".join((*way[way.index(name) :], name))
                raise EmptcpError(
                    f"chain {quoted(name)} leads back to itself: {circle}",
                    fix="A chain must end: remove one of these ways.",
                    where=str(known[name].where),
                )
            if name in known and known[name] not in done:
                visit(_followers(known[name].do, chosen), (*way, name))
                done.append(known[name])

    visit(_followers(do, chosen), ())
    return done[::-1]


def strictly(table: model.Table, catalog: Catalog) -> Chosen:
    """Return what tells the chains of a stage, and refuses one that there is not."""
    known = [chain.name for chain in table.chains]

    def chosen(spec: model.StageSpec) -> Iterator[str]:
        for parameter, name in catalog.bind(spec, devices=values.any_device).chains.items():
            if name not in known:
                raise EmptcpError(
                    f"parameter '{parameter}' of actor '{spec.name}': there is no chain {quoted(name)}",
                    fix=did_you_mean(name, known).capitalize() or f"Declare it: [chain.{name}]",
                    where=str(spec.where),
                )
            yield name

    return chosen


def as_far_as_known(catalog: Catalog) -> Chosen:
    """Return what tells the chains of a stage, and passes over stages that can't be bound any more."""

    def chosen(spec: model.StageSpec) -> Iterable[str]:
        try:
            return catalog.bind(spec, devices=values.any_device).chains.values()
        except EmptcpError:
            return ()

    return chosen


def with_numbers(table: model.Table, bound: BoundStage) -> tuple[tuple[int, str], ...]:
    """Return the chains that a stage may choose from, each with its number."""
    return tuple(dict.fromkeys((number(table, name), name) for name in bound.chains.values()))


def _followers(do: tuple[model.Step, ...], chosen: Chosen) -> Iterator[str]:
    for step in do:
        if isinstance(step, model.Goto):
            yield step.chain
        else:
            yield from chosen(step)
