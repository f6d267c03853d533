# SPDX-License-Identifier: Apache-2.0
"""The hooks that a plugin's Python side may implement, by pluggy; this is version ``HOOK_API`` of them.

An implementation is a function of the hook's name, marked ``@hookimpl``, in the module that the manifest
names. It may take fewer arguments than the hook has, so arguments that are added later break nobody. What it
raises is reported with the plugin's name and stops nobody else, with one exception: an
:class:`~emptcp.errors.EmptcpError` from :func:`emptcp_validate` is a refusal. What takes longer than 30
seconds (``EMPTCP_HOOK_LIMIT``) is interrupted, and reported likewise.

When each is called::

    command      before                              the kernel             after
    -----------  ----------------------------------  ---------------------  ------------------------------
    apply        emptcp_validate > emptcp_applying > programs switch      > emptcp_removed, emptcp_applied
                 every stage       new and changed                          gone            new and changed
                                                                          > emptcp_sockets, every stage
    tune, chain  emptcp_validate > emptcp_applying > values, or programs  > emptcp_applied, emptcp_sockets
    remove                                           programs go          > emptcp_removed
    off                                              programs detach      > emptcp_removed
    on                             emptcp_applying > programs attach      > emptcp_applied, emptcp_sockets
    run          at its start, for every stage that runs already          > emptcp_applied, emptcp_sockets
    run          once a second, for every stage that runs                 > emptcp_sockets
    run                                              a program sends      > emptcp_event
    run                                              entries of a map     > emptcp_entries
    monitor                                          a program sends      > emptcp_describe
    list                                             counters are read    > emptcp_format, emptcp_notes
    connections                                      the flow table       > emptcp_metrics,
                                                                            emptcp_connection_metrics,
                                                                            emptcp_actions
    COMMAND      emptcp_commands, for a command that the plugin's manifest declares
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

from emptcp.plugins.versions import CHAIN_ABI, HOOK_API

if TYPE_CHECKING:
    import argparse

    from emptcp.plugins.catalog import BoundStage
    from emptcp.plugins.occasions import (
        Action,
        Change,
        ConnectionEntry,
        Ends,
        FlowEntry,
        StageEvent,
        SubflowSource,
    )
    from emptcp.policy.model import Policy

PROJECT = "emptcp"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def emptcp_validate(stage: BoundStage, policy: Policy) -> None:
    """Refuse a stage whose values are each right and yet can't work together, or in this policy.

    Called for every stage of every policy, also other plugins', before anything is changed.

    :param stage: the stage with its type and its values.
    :param policy: the policy it stands in.
    :raises EmptcpError: the sentence and the fix that the operator reads.

    .. code-block:: python

        from emptcp.api import EmptcpError, hookimpl


        @hookimpl
        def emptcp_validate(stage, policy):
            if stage.type.name == "cap_window" and "ingress" in policy.hooks:
                raise EmptcpError("cap_window caps what goes out", fix='Write hook = "egress".')
    """


@hookspec(firstresult=True)
def emptcp_format(stage: BoundStage) -> str | None:
    """Say a stage in the plugin's own words in ``emptcp list``; ``None`` leaves it to the next.

    When nobody has words for it, or the stage's plugin is gone, it is printed as the file says it. The JSON
    form always has that text.

    :param stage: the stage with its values.
    :returns: one line.

    .. code-block:: python

        @hookimpl
        def emptcp_format(stage):
            if stage.type.name == "cap_window":
                return f"cap the window at {stage.values['bytes'] >> 10} KiB"
    """


@hookspec
def emptcp_applying(change: Change) -> None:
    """Note what the stage will change, before a stage that is new or has other values begins to run.

    :param change: as for :func:`emptcp_applied`; the kernel may still refuse what was planned.

    .. code-block:: python

        @hookimpl
        def emptcp_applying(change):
            if change.stage.type.name == "announce":
                remember(announced(change.namespace))
    """


@hookspec
def emptcp_applied(change: Change) -> None:
    """Act once when a stage begins to run or its values changed: the packets' part already runs.

    :param change: the stage, its policy, hook, devices and namespace; ``change.before`` is set when only
        values changed.

    .. code-block:: python

        @hookimpl
        def emptcp_applied(change):
            if change.stage.type.name == "announce":
                announce(change.value("address"), change.namespace)
    """


@hookspec
def emptcp_removed(change: Change) -> None:
    """Take back what the stage left in sockets or at peers: the packets' part runs no more.

    Not called with ``--keep-effects``.

    :param change: the stage as it was.

    .. code-block:: python

        @hookimpl
        def emptcp_removed(change):
            if change.stage.type.name == "announce":
                withdraw(change.value("address"), change.namespace)
    """


@hookspec
def emptcp_sockets(changes: Sequence[Change], reader: SubflowSource) -> None:
    """Look at the subflows that this host has now, and bring the plugin's maps in line with them.

    Called for each stage that runs, whenever its table changed and once a second within ``emptcp run``, where
    the kernel can list subflows. It can be called often: do nothing where nothing changed.

    :param changes: the stage in all its places of one namespace, one for each hook and device, as for
        :func:`emptcp_applied`.
    :param reader: an ``emptcp.api.Snapshot``: ``reader.read(changes[0].namespace)`` are this host's subflows.
        It may be handed to ``selected_subflows()``.

    .. code-block:: python

        @hookimpl
        def emptcp_sockets(changes, reader):
            if changes[0].stage.type.name == "cap_window":
                remember(changes[0].number, {one.token for one in reader.read(changes[0].namespace)})
    """


@hookspec
def emptcp_entries(change: Change, parameter: str, entries: Mapping[Ends, Any]) -> None:
    """Act at once on subflows for which a map that the stage reads says something else now.

    Passing packets go by the map already; this is for subflows on which none passes, and for what is to be
    taken back where an entry went, as then no packet runs the stage any more. Called within ``emptcp run``
    when a controller has set something, once for each hook and device of the policy: entries may be of
    subflows of other devices, or that have ended.

    :param change: the stage as it runs, as for :func:`emptcp_applied`.
    :param parameter: the parameter that reads the map.
    :param entries: the subflow's two ends, this host's first or last, to the value, ``None`` where the entry
        went. A new entry is for a subflow that was otherwise before.

    .. code-block:: python

        @hookimpl
        def emptcp_entries(change, parameter, entries):
            if change.stage.type.name == "announce":
                for ends, address in entries.items():
                    announce(address, ends) if address is not None else withdraw(ends)
    """


@hookspec
def emptcp_event(event: StageEvent) -> None:
    """Act on a record that one of the plugin's fragments sent. Called within ``emptcp run``.

    :param event: the record; ``event.plugin`` tells whose it is.

    .. code-block:: python

        @hookimpl
        def emptcp_event(event):
            if event.source == "cap_window":
                log.info("window capped on %s", event.endpoints)
    """


@hookspec(firstresult=True)
def emptcp_describe(event: StageEvent, secrets: bool) -> Mapping[str, Any] | None:
    """Say in ``emptcp monitor`` what a record tells; ``None`` for another plugin's.

    A record that nobody describes is printed with its number and its bytes.

    :param event: the record; ``event.plugin`` tells whose it is.
    :param secrets: whether the operator asked for what should not stand in a log, such as keys.
    :returns: ``event``, the name (as ``ip mptcp monitor`` has it, where it has one), then what the record
        tells in the order in which it is printed: numbers, texts, addresses. ``token`` and names that end
        in ``_token`` are printed in hexadecimal.

    .. code-block:: python

        @hookimpl
        def emptcp_describe(event, secrets):
            if event.source == "cap_window":
                return {"event": "WINDOW_CAPPED", "bytes": int.from_bytes(event.data, "little")}
    """


@hookspec
def emptcp_metrics(entries: Sequence[FlowEntry]) -> Sequence[Mapping[str, float]]:
    """Tell the metrics that the plugin's fragments keep in the flow table.

    :param entries: the subflows asked about, with the fragments' state.
    :returns: one mapping per entry, in their order: the metric's name to its value in base units (bytes,
        seconds, packets); empty where nothing is known.

    .. code-block:: python

        @hookimpl
        def emptcp_metrics(entries):
            return [{"packets": count(entry.state)} if "count" in entry.state else {} for entry in entries]
    """
    raise NotImplementedError


@hookspec
def emptcp_connection_metrics(connections: Sequence[ConnectionEntry]) -> Sequence[Mapping[str, float]]:
    """Tell metrics of connections as a whole, where they are more than those of the subflows.

    :param connections: the connections whose tokens are known, with their subflows as for
        :func:`emptcp_metrics`.
    :returns: one mapping per connection, in their order, as from :func:`emptcp_metrics`.

    .. code-block:: python

        @hookimpl
        def emptcp_connection_metrics(connections):
            return [{"packets": sum(count(one.state) for one in each.subflows)} for each in connections]
    """
    raise NotImplementedError


@hookspec
def emptcp_actions(entries: Sequence[FlowEntry]) -> Sequence[Sequence[Action]]:
    """Tell what the plugin's actors did last to subflows, as `emptcp connections` prints it.

    :param entries: the subflows asked about, with the fragments' state.
    :returns: for each entry, in their order, what is in force of that; empty where nothing is.

    .. code-block:: python

        from emptcp.api import Action, hookimpl


        @hookimpl
        def emptcp_actions(entries):
            capped = (capped_at(one.state) for one in entries)
            return [[Action("cap_window", f"at {size} bytes", 0)] if size else [] for size in capped]
    """
    raise NotImplementedError


@hookspec
def emptcp_notes(changes: Sequence[Change]) -> Sequence[str]:
    """Say in ``emptcp list`` what an operator should know of a running stage and counters don't tell.

    For instance which connections it can't act on, and why. Called once for each stage of each policy that is
    not switched off.

    :param changes: the stage in all its places, one for each hook and device, as for
        :func:`emptcp_applied`.
    :returns: a line for each fact; empty for another plugin's stage, and where there is nothing to say.

    .. code-block:: python

        @hookimpl
        def emptcp_notes(changes):
            if changes[0].stage.type.name != "cap_window":
                return []
            unscaled = sum(scale(state) is None for one in changes for _, state in one.flows.items())
            return [f"not covered: {unscaled} subflows, scale unknown"] if unscaled else []
    """
    raise NotImplementedError


@hookspec
def emptcp_commands(name: str, parser: argparse.ArgumentParser) -> None:
    """Fill in the parser of a command that the manifest declares, and set its ``run`` default.

    Called only when the operator calls that command: listing commands needs the manifest alone.

    :param name: the command.
    :param parser: its parser; ``parser.set_defaults(run=function)`` with a function that takes the parsed
        arguments and returns the exit code.

    .. code-block:: python

        @hookimpl
        def emptcp_commands(name, parser):
            if name == "windows":
                parser.add_argument("--json", action="store_true")
                parser.set_defaults(run=print_windows)
    """


__all__ = ["CHAIN_ABI", "HOOK_API", "PROJECT", "hookimpl", "hookspec"]
