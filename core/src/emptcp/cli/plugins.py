# SPDX-License-Identifier: Apache-2.0
"""`emptcp plugins list|info|install|enable|disable`. Listing runs no plugin's code."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from emptcp.errors import quoted

if TYPE_CHECKING:
    from emptcp.plugins.discovery import Plugin

Names = TypeVar("Names")

SCHEMA = 1
_COLUMNS = ("NAME", "STATE", "VERSION", "DISTRIBUTION", "PROVIDES")


def register(groups: Any) -> None:
    """Add the command group to the parser's subcommands."""
    parser = groups.add_parser("plugins", help="list, judge, install, enable and disable plugins")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_list(commands)
    _command(commands, "info", _info, "print what a plugin provides, with parameters", json=True, name=True)
    _add_install(commands)
    _command(commands, "enable", _enable, "let policies use a plugin, as it is installed now", name=True)
    _command(commands, "disable", _disable, "keep policies from using a plugin", name=True, force=True)


def _add_list(commands: Any) -> None:
    text = "print every installed plugin and its state"
    parser = commands.add_parser("list", help=text, description=f"{text.capitalize()}.")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print JSON")
    how.add_argument(
        "--requirements", action="store_true", help="print what pip needs to install the same elsewhere"
    )
    parser.set_defaults(run=_list)


def _add_install(commands: Any) -> None:
    parser = commands.add_parser(
        "install",
        help="install plugins from wheels, not enabled yet",
        description="Installs plugins into the environment that emptcp runs in, by pip, from wheels alone.",
    )
    parser.add_argument("what", metavar="NAME|WHEEL", nargs="+", help="a distribution, or a wheel's path")
    parser.set_defaults(run=_install)


def _command(
    commands: Any,
    word: str,
    run: Any,
    text: str,
    *,
    json: bool = False,
    name: bool = False,
    force: bool = False,
) -> None:
    parser = commands.add_parser(word, help=text, description=f"{text.capitalize()}.")
    if name:
        parser.add_argument("name", metavar="NAME", help="the plugin's name, or DIST:NAME")
    if force:
        parser.add_argument("--force", action="store_true", help="remove the policies that use it first")
    if json:
        parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def _list(arguments: argparse.Namespace) -> int:
    from emptcp.cli.columns import aligned
    from emptcp.plugins import belongings, state

    if arguments.requirements:
        from emptcp.plugins import requirements

        print("\n".join(requirements.reproducing(state.judged())))
        return 0
    plugins = state.judged(_in_use())
    if arguments.json:
        _print_json({"schema": SCHEMA, "plugins": [_row(plugin) for plugin in plugins]})
        return 0
    print("\n".join(aligned([_COLUMNS, *(_cells(plugin) for plugin in plugins)])))
    for plugin in plugins:
        if (plugin.reason and plugin.state != "active") or belongings.strays(plugin):
            print("\n".join(_remark(plugin)))
    return 0


def _info(arguments: argparse.Namespace) -> int:
    from emptcp.cli import plugin_description
    from emptcp.plugins import state

    plugin = state.one(state.judged(_in_use()), arguments.name)
    if arguments.json:
        _print_json({"schema": SCHEMA, **_row(plugin), **plugin_description.details(plugin)})
    else:
        print("\n".join(plugin_description.lines(plugin)))
    return 0


def _install(arguments: argparse.Namespace) -> int:
    from emptcp.plugins import install, state

    changed = {plugin.id for plugin in install.install(arguments.what)}
    for plugin in state.judged():
        if plugin.id in changed:
            print(f"installed {plugin.id} {plugin.version}: {plugin.state}")
            print("\n".join(_remark(plugin)).lstrip("\n"))
    if not changed:
        print("no plugin is new")
    return 0


def _enable(arguments: argparse.Namespace) -> int:
    from emptcp.plugins import belongings, state
    from emptcp.plugins.digest import is_editable

    plugin = state.enable(arguments.name)
    if told := belongings.warning(plugin):
        print(f"warning: {told}", file=sys.stderr)
    print(f"enabled {plugin.id} {plugin.version}: {', '.join(plugin.provides) or 'provides nothing'}")
    if is_editable(plugin):
        print(f"It is an editable install: whatever stands in {plugin.folder} from now on may run as root.")
    return 0


def _disable(arguments: argparse.Namespace) -> int:
    from emptcp.plugins import state

    plugin = state.one(state.judged(), arguments.name)
    _free(plugin, force=arguments.force)
    state.disable(plugin.id)
    print(f"disabled {plugin.id}; no policy can be applied with it from now on")
    return 0


def _free(plugin: Plugin, *, force: bool) -> None:
    """Remove the policies that use a plugin; without ``force`` refuse where there are any."""
    from emptcp.chain import users
    from emptcp.cli.outcome import print_outcome
    from emptcp.errors import EmptcpError

    found = _readable(lambda: users.of_plugin(plugin.name))
    policies = [f"{table}/{policy}" for table, names in found.items() for policy in names]
    if policies and not force:
        what = "policy" if len(policies) == 1 else "policies"
        sentence = f"plugin '{plugin.name}' is used by {what} {', '.join(map(quoted, policies))}"
        fix = f"Run: emptcp plugins disable {plugin.name} --force, which takes them out of force first."
        raise EmptcpError(sentence, fix=fix)
    for outcome in users.remove(found):
        print_outcome(outcome, as_json=False)
    if policies:
        print(f"removed {', '.join(policies)}")


def _in_use() -> Mapping[str, Sequence[str]]:
    """Return the plugins that run and the policies that use each; nothing where that can't be read.

    Whatever is wrong with what runs, the plugins can be listed and disabled.
    """

    def read() -> Mapping[str, Sequence[str]]:
        from emptcp.chain import pins

        if (found := pins.find()) is None:
            return {}
        from emptcp.chain import running

        with running.everything(found) as everything:
            return running.plugins_in_use(everything)

    return _readable(read)


def _readable(read: Callable[[], Mapping[str, Names]]) -> Mapping[str, Names]:
    """Return what ``read`` tells of running policies; nothing, and a word, where that can't be read."""
    from emptcp.errors import EmptcpError
    from emptcp.pybpf.errors import BpfError

    try:
        return read()
    except (EmptcpError, BpfError, OSError) as error:
        first = str(error).splitlines()[0]
        print(f"emptcp: which plugins are in use can't be told: {first}", file=sys.stderr)
        return {}


# Output


def _row(plugin: Plugin) -> dict[str, Any]:
    from emptcp.plugins import belongings

    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "provides": list(plugin.provides),
        "state": plugin.state,
        "reason": ". ".join(filter(None, (plugin.reason, plugin.fix))) or None,
        "strays": belongings.strays(plugin),
    }


def _cells(plugin: Plugin) -> tuple[str, ...]:
    provides = ", ".join(plugin.provides) or "-"
    return (plugin.name, plugin.state, plugin.version or "-", plugin.distribution or "-", provides)


def _remark(plugin: Plugin) -> Iterator[str]:
    from emptcp.plugins import belongings

    told = (plugin.reason if plugin.state != "active" else "", belongings.warning(plugin))
    yield f"\n{plugin.name}: {'; '.join(filter(None, told))}"
    if plugin.fix:
        yield f"  {plugin.fix}"


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))
