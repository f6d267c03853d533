# SPDX-License-Identifier: Apache-2.0
"""Hold what a policy file requires to what is installed and enabled; tell what would reproduce it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import metadata

from emptcp.errors import EmptcpError, quoted
from emptcp.plugins import state
from emptcp.plugins.discovery import Plugin
from emptcp.plugins.distributions import canonical
from emptcp.policy.requirement import EXAMPLE, Requirement


def check(wanted: Iterable[Requirement]) -> None:
    """Raise :class:`EmptcpError` at the first requirement that is not met.

    Met is one whose distribution is installed in such a version, all its plugins enabled.
    """
    judged: list[Plugin] | None = None
    for one in wanted:
        _version(one)
        judged = state.judged() if judged is None else judged
        for plugin in judged:
            if canonical(plugin.distribution) == canonical(one.name) and not plugin.usable:
                sentence = f"the file requires {one}, and its plugin '{plugin.name}' is {plugin.state}"
                raise EmptcpError(sentence, fix=_fix(plugin), where=str(one.where))


def _version(one: Requirement) -> None:
    # Here and not above: most files require nothing.
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        wanted = SpecifierSet(one.versions)
        found = metadata.version(one.name)
    except InvalidSpecifier:
        fix = f"Write it as in {EXAMPLE}."
        raise EmptcpError(f"{quoted(one.versions)} are no versions", fix=fix, where=str(one.where)) from None
    except metadata.PackageNotFoundError:
        sentence = f"the file requires {one}, which is not installed"
        raise EmptcpError(sentence, fix=_install(one), where=str(one.where)) from None
    if not wanted.contains(found, prereleases=True):
        sentence = f"the file requires {one}, and {found} is installed"
        raise EmptcpError(sentence, fix=_install(one), where=str(one.where))


def _install(one: Requirement) -> str:
    return f"Run: pip install '{one}'"


def _fix(plugin: Plugin) -> str:
    if plugin.state == "invalid":
        return f"{plugin.reason}. {plugin.fix}".strip()
    return f"Run: emptcp plugins enable {plugin.name}"


def reproducing(plugins: Iterable[Plugin]) -> Iterator[str]:
    """Yield what pip needs to install these plugins again, with emptcp itself, in these versions."""
    found = {canonical(one.distribution): one for one in plugins if one.metadata is not None}
    yield f"emptcp=={metadata.version('emptcp')}"
    for name, plugin in sorted(found.items()):
        yield f"{name}=={plugin.version}"
