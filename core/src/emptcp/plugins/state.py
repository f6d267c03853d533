# SPDX-License-Identifier: Apache-2.0
"""Which plugins the operator enabled: ``/etc/emptcp/plugins.toml``, and the state of each plugin by it.

Installed is not enabled: a plugin's code runs as root, so the operator says so once for each version.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from emptcp.errors import EmptcpError, did_you_mean, quoted
from emptcp.plugins import discovery, whereabouts
from emptcp.plugins.digest import digest, is_editable
from emptcp.plugins.discovery import Plugin
from emptcp.plugins.distributions import FIRST_PARTY, canonical
from emptcp.policy import document
from emptcp.policy.document import Section
from emptcp.policy.text import toml_string

SCHEMA = 1
InUse = Mapping[str, Sequence[str]]
"""Plugins that run, by ``name`` or ``dist:name``, and the policies that use each."""


@dataclass(frozen=True)
class Record:
    """What the operator said of one plugin, and what it was then.

    ``digest`` is over its files; an editable install, whose files change all the time, is known by the
    ``path`` of its package instead.
    """

    name: str
    distribution: str
    version: str
    enabled: bool
    digest: str = ""
    path: str = ""

    @property
    def id(self) -> str:
        """``dist:name``."""
        return f"{self.distribution}:{self.name}"


def folder() -> Path:
    """Return the folder of emptcp's settings: ``EMPTCP_ETC``, else ``/etc/emptcp``."""
    return Path(whereabouts.settings())


def file() -> Path:
    """Return the path of the state file."""
    return Path(whereabouts.state_file())


def is_first_party(plugin: Plugin) -> bool:
    """Return whether a plugin is the project's own."""
    return canonical(plugin.distribution) in FIRST_PARTY


def judged(in_use: InUse | None = None) -> list[Plugin]:
    """Return every plugin in its state, by name; with ``in_use`` also those that run though uninstalled."""
    recorded = read()
    found = [_judge(plugin, recorded.get(plugin.id)) for plugin in discovery.discover()]
    return _with_use(found, recorded, in_use or {})


def enable(name: str) -> Plugin:
    """Let policies use a plugin, in the version that is installed now.

    ``name`` may be ``dist:name``. Everything that can be checked without running it is. An editable install
    is enabled by its path: whatever stands there later may be used too.
    Raises :class:`EmptcpError` when there is no such plugin, it is broken, a name it claims is taken, or the
    caller may not.
    """
    with _locked():
        everything = judged()
        plugin = one(everything, name)
        _refuse_taken_names(plugin, everything)
        _refuse_broken(plugin, everything)
        record = Record(plugin.name, plugin.distribution, plugin.version, True, **_identity(plugin))
        _write({**read(), plugin.id: record})
    return replace(plugin, state=discovery.ENABLED, reason="", fix="")


def disable(name: str) -> Plugin:
    """Keep policies from using a plugin. What runs goes on running, and no effect is taken back.

    Raises :class:`EmptcpError` when there is no such plugin, or the caller may not.
    """
    with _locked():
        plugin = one(judged(), name)
        record = Record(plugin.name, plugin.distribution, plugin.version, False)
        _write({**read(), plugin.id: record})
    return replace(plugin, state=discovery.DISABLED, reason="", fix="")


# States


def _judge(plugin: Plugin, record: Record | None) -> Plugin:
    """Return the plugin in the state that the operator's record gives it."""
    if plugin.state == discovery.INVALID:
        return plugin
    run = f"Run: emptcp plugins enable {plugin.name}"
    if record is not None and not record.enabled:
        return replace(plugin, state=discovery.DISABLED, reason="the operator disabled it", fix=run)
    if is_first_party(plugin):
        return replace(plugin, state=discovery.ENABLED)
    if record is None:
        return replace(plugin, reason="it was never enabled", fix=run)
    return _unless_changed(plugin, record, run)


def _identity(plugin: Plugin) -> dict[str, str]:
    """Return what a plugin is known again by. Raises :class:`EmptcpError` when a file can't be read."""
    return {"path": str(plugin.folder)} if is_editable(plugin) else {"digest": digest(plugin)}


def _unless_changed(plugin: Plugin, record: Record, run: str) -> Plugin:
    try:
        same = {"digest": record.digest, "path": record.path} == {
            "digest": "",
            "path": "",
            **_identity(plugin),
        }
    except EmptcpError as error:
        return replace(plugin, state=discovery.INVALID, reason=error.sentence, fix=error.fix)
    if same:
        return replace(plugin, state=discovery.ENABLED)
    if record.path:
        reason = f"it is no longer the editable install of {record.path} that was enabled"
        return replace(plugin, state=discovery.CHANGED, reason=reason, fix=run)
    versions = f" {record.version} to {plugin.version}" if record.version != plugin.version else ""
    reason = f"its files changed{versions} since it was enabled"
    return replace(plugin, state=discovery.CHANGED, reason=reason, fix=run)


def _with_use(plugins: list[Plugin], recorded: Mapping[str, Record], in_use: InUse) -> list[Plugin]:
    rows = [_active(plugin, in_use) for plugin in plugins]
    known = {key for plugin in plugins for key in (plugin.name, plugin.id)}
    rows += [_orphan(key, in_use[key], recorded) for key in in_use if key not in known]
    return sorted(rows, key=lambda plugin: (plugin.name, plugin.distribution))


def _active(plugin: Plugin, in_use: InUse) -> Plugin:
    policies = [*in_use.get(plugin.id, ()), *in_use.get(plugin.name, ())]
    if not policies:
        return plugin
    where = f"in {_policies(policies)}"
    if plugin.usable:
        return replace(plugin, state=discovery.ACTIVE, reason=where)
    return replace(plugin, reason=f"{plugin.reason}; what was applied goes on running {where}")


def _orphan(key: str, policies: Sequence[str], recorded: Mapping[str, Record]) -> Plugin:
    distribution, _, name = key.rpartition(":")
    record = next((one for one in recorded.values() if key in (one.id, one.name)), None)
    reason = f"it was uninstalled, and keeps running in {_policies(policies)}"
    return Plugin(
        name=name,
        distribution=record.distribution if record else distribution,
        version=record.version if record else "",
        state=discovery.ORPHANED,
        reason=reason,
        fix="Install it again, or remove the policy.",
    )


def _policies(names: Iterable[str]) -> str:
    listed = ", ".join(quoted(name) for name in names)
    return f"policy {listed}"


# Enabling


def one(plugins: list[Plugin], name: str) -> Plugin:
    """Return the plugin that ``name`` or ``dist:name`` means. Raises :class:`EmptcpError`."""
    found = list(discovery.matching(plugins, name))
    if not found:
        names = [plugin.name for plugin in plugins]
        fix = did_you_mean(name, names) or "See: emptcp plugins list"
        raise EmptcpError(f"no plugin {quoted(name)} is installed", fix=fix)
    if len(found) > 1:
        ids = " and ".join(plugin.id for plugin in found)
        raise EmptcpError(f"plugin {quoted(name)} may be {ids}", fix=f"Write {found[0].id}, for one.")
    return found[0]


def _refuse_broken(plugin: Plugin, everything: list[Plugin]) -> None:
    problem = fix = ""
    if plugin.state == discovery.INVALID:
        problem, fix = plugin.reason, plugin.fix
    elif plugin.manifest is not None and plugin.manifest.object and plugin.folder is not None:
        from emptcp.plugins import agreement, imports, layout

        try:
            agreement.check(plugin.manifest, layout.read(plugin.folder / plugin.manifest.object))
            imports.resolve(plugin, everything)
        except EmptcpError as error:
            problem, fix = error.sentence, error.fix
    if problem:
        raise EmptcpError(f"plugin '{plugin.name}' can't be enabled: {problem}", fix=fix)


def _refuse_taken_names(plugin: Plugin, everything: list[Plugin]) -> None:
    for other in everything:
        if other.id != plugin.id and other.usable and (shared := _shared(plugin, other)):
            sentence = f"{plugin.id} can't be enabled: {other.id} already has the name of its {shared}"
            raise EmptcpError(sentence, fix=f"Run first: emptcp plugins disable {other.id}")


def _shared(one: Plugin, other: Plugin) -> str:
    """Return the first name that both claim, as in ``"actor record"``; the plugins' own names count."""
    claimed = (*other.provides, f"plugin {other.name}")
    return next((name for name in (*one.provides, f"plugin {one.name}") if name in claimed), "")


# The file


def read() -> dict[str, Record]:
    """Return the operator's records by ``dist:name``; none when there is no file.

    Raises :class:`EmptcpError` when the file is broken: nobody may guess what was enabled.
    """
    if not file().exists():
        return {}
    top = document.read(file())
    top.what = "the state file"
    top.refuse_unknown(("schema", "plugin"))
    if top.number("schema", SCHEMA) != SCHEMA:
        raise top.error("the state file is of another emptcp", "schema", fix="Enable the plugins again.")
    return {record.id: record for record in map(_record, top.sections("plugin", "a plugin's entry"))}


def _record(section: Section) -> Record:
    section.refuse_unknown(("name", "distribution", "version", "enabled", "sha256", "path"))
    for key in ("name", "distribution"):
        section.require(key, "Remove this entry, and enable the plugin again.")
    return Record(
        section.text("name"),
        section.text("distribution"),
        section.text("version"),
        section.flag("enabled"),
        section.text("sha256"),
        section.text("path"),
    )


def _text(records: Iterable[Record]) -> Iterator[str]:
    yield "# Written by `emptcp plugins enable` and `disable`.\n"
    yield f"schema = {SCHEMA}\n"
    for record in sorted(records, key=lambda one: one.id):
        yield "\n[[plugin]]\n"
        for key in ("name", "distribution", "version"):
            yield f"{key} = {toml_string(getattr(record, key))}\n"
        yield f"enabled = {str(record.enabled).lower()}\n"
        if record.digest:
            yield f"sha256 = {toml_string(record.digest)}\n"
        if record.path:
            yield f"path = {toml_string(record.path)}\n"


def _write(records: Mapping[str, Record]) -> None:
    """Replace the file at once: a reader sees the old one or the new one."""
    staged = file().with_name(".plugins.toml.new")
    with open(staged, "w", encoding="utf-8", opener=_for_all_to_read) as output:
        output.writelines(_text(records.values()))
        output.flush()
        os.fsync(output.fileno())
    staged.replace(file())


def _for_all_to_read(path: str, flags: int) -> int:
    return os.open(path, flags, 0o644)


@contextmanager
def _locked() -> Iterator[None]:
    """Hold the lock on the settings. Raises :class:`EmptcpError` when the caller may not write them."""
    try:
        folder().mkdir(mode=0o755, parents=True, exist_ok=True)
        lock = os.open(folder() / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _may_not(error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    except OSError as error:
        raise _may_not(error) from None
    finally:
        os.close(lock)


def _may_not(error: OSError) -> EmptcpError:
    if error.errno in (errno.EPERM, errno.EACCES):
        sentence = f"enabling and disabling plugins needs root, who alone may write {folder()}"
        return EmptcpError(sentence, fix="Run it with sudo.")
    return EmptcpError(f"{file()} can't be written: {error.strerror}", fix="Make room for it, and try again.")
