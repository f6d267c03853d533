# SPDX-License-Identifier: Apache-2.0
"""All that is to be known of a plugin before it is enabled: what `emptcp plugins info` prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from emptcp.errors import EmptcpError, quoted
from emptcp.plugins import belongings, lowest
from emptcp.plugins.arguments import usage
from emptcp.plugins.digest import digest, size
from emptcp.plugins.discovery import Plugin
from emptcp.plugins.manifest import ControllerDeclaration, Parameter, StageDeclaration


def lines(plugin: Plugin) -> Iterator[str]:
    """Yield the description for people."""
    yield f"{plugin.name} {plugin.version} from {plugin.distribution or 'unknown'}: {plugin.state}"
    yield from (f"  {text}" for text in (plugin.reason, plugin.fix, belongings.warning(plugin)) if text)
    if plugin.manifest is None:
        return
    if plugin.manifest.summary:
        yield plugin.manifest.summary
    if plugin.manifest.resident:
        yield "needs a resident process: emptcp run"
    yield from _origin(plugin)
    yield f"in {plugin.folder}"
    yield from _kernels(plugin)
    for stage in plugin.manifest.stages:
        yield from _stage(stage)
    for controller in plugin.manifest.controllers:
        yield from _controller(controller)
    for one in plugin.manifest.declarations:
        yield f"\n{one.kind} {one.name}: {one.help}"
    for export in plugin.manifest.exports:
        yield f"\nexports map {export.map}: {export.help}"
    for wanted in plugin.manifest.imports:
        alias = f" as {wanted.name}" if wanted.name != wanted.map else ""
        yield f"\nimports map {wanted.map} of {wanted.source}{alias}"


def _origin(plugin: Plugin) -> Iterator[str]:
    """Yield who made it, under what licence, how large it is, and the digest that enabling would record."""
    author, licence = _told(plugin, "Author", "Author-email"), _told(plugin, "License-Expression", "License")
    if author or licence:
        yield ", ".join(filter(None, (author and f"by {author}", licence and f"under {licence}")))
    whole, found = _files(plugin)
    if found:
        yield f"{whole} bytes, sha256 {found}"


def _told(plugin: Plugin, *fields: str) -> str:
    """Return the first of the metadata's fields that is there, on one line."""
    try:
        texts = [str(plugin.metadata.metadata.get(field) or "") for field in fields]  # type: ignore[union-attr]
    except Exception:  # a stranger's METADATA may be anything
        return ""
    return quoted(next(filter(None, texts), ""), 100)[1:-1]


def _files(plugin: Plugin) -> tuple[int, str]:
    try:
        return size(plugin), digest(plugin)
    except EmptcpError:
        return 0, ""


def _kernels(plugin: Plugin) -> Iterator[str]:
    """Yield the lowest kernels; nothing for an object that can't be read, which its state tells of."""
    try:
        yield f"runs on {lowest.of_plugin(plugin).text}"
        for name, found in lowest.of_sockets(plugin).items():
            yield f"its socket companion {name} runs on {found.text}"
    except EmptcpError as error:
        yield error.sentence


def _lowest(plugin: Plugin) -> dict[str, Any]:
    try:
        whole = lowest.of_plugin(plugin).number
        parts = {**lowest.of_stages(plugin), **lowest.of_sockets(plugin)}
    except EmptcpError:
        return {"lowest": None, "parts": {}}
    rows = {name: {"lowest": one.number, "needs": [n.text for n in one.needs]} for name, one in parts.items()}
    return {"lowest": whole, "parts": rows}


def _stage(stage: StageDeclaration) -> Iterator[str]:
    yield f"\n{stage.kind} {usage(stage)}"
    yield from (f"  {text}" for text in (stage.help, f"runs at {' and '.join(stage.hooks)}") if text)
    if stage.kind == "actor":
        yield f"  changes {', '.join(stage.modifies) or 'nothing in packets'}"
        others = [one for one in stage.verdicts if one != "NEXT"]
        yield from (f"  may answer {one}" for one in [", ".join(others)] if one)
    yield from (f"  also runs '{one.fragment}' at {one.hook}" for one in stage.companions)
    if stage.features:
        yield f"  needs of the kernel: {', '.join(stage.features)}"
    if stage.unsafe:
        yield "  can break connections: needs unsafe = true in the policy"
    yield from _parameters(stage.parameters)


def _controller(controller: ControllerDeclaration) -> Iterator[str]:
    yield f'\ncontroller use = "{controller.name}"' + (
        f", {usage(controller)}" if controller.parameters else ""
    )
    end = "either end" if controller.end == "any" else f"the {controller.end}"
    yield from (f"  {text}" for text in (controller.help, f"runs at {end} of the data") if text)
    yield f"  sets {' and '.join(controller.sets)} of subflows"
    yield from _parameters(controller.parameters)


def _parameters(parameters: Iterable[Parameter]) -> Iterator[str]:
    for parameter in parameters:
        yield f"  {parameter.name} ({', '.join(_facts(parameter))}): {parameter.help}"


def _facts(parameter: Parameter) -> Iterator[str]:
    yield parameter.type.kind
    if parameter.required:
        yield "required"
    if parameter.default is not None:
        yield f"default {parameter.type.format(parameter.default)}"
    low, high = (
        None if bound is None else parameter.type.format(bound)
        for bound in (parameter.minimum, parameter.maximum)
    )
    if low is not None or high is not None:
        yield f"{low or 'any'} to {high or 'any'}"
    names = getattr(parameter.type, "names", {})
    if names:
        yield "one of " + " ".join(names) if parameter.type.kind == "int" else "of " + " ".join(names)


def details(plugin: Plugin) -> dict[str, Any]:
    """Return the description for JSON."""
    manifest = plugin.manifest
    stages, exports, imports = (
        (manifest.stages, manifest.exports, manifest.imports) if manifest else ((), (), ())
    )
    return {
        "summary": manifest.summary if manifest else "",
        "author": _told(plugin, "Author", "Author-email"),
        "licence": _told(plugin, "License-Expression", "License"),
        "bytes": _files(plugin)[0],
        "sha256": _files(plugin)[1] or None,
        "folder": str(plugin.folder) if plugin.folder else None,
        "kernel": _lowest(plugin),
        "exports": [{"map": one.map, "help": one.help} for one in exports],
        "imports": [{"map": one.map, "from": one.source, "as": one.name} for one in imports],
        "stages": [
            {
                "kind": stage.kind,
                "name": stage.name,
                "help": stage.help,
                "hooks": list(stage.hooks),
                "modifies": list(stage.modifies),
                "verdicts": list(stage.verdicts),
                "companions": [{"hook": one.hook, "fragment": one.fragment} for one in stage.companions],
                "features": list(stage.features),
                "unsafe": stage.unsafe,
                "parameters": [_parameter(parameter) for parameter in stage.parameters],
            }
            for stage in stages
        ],
        "controllers": [
            {
                "name": one.name,
                "help": one.help,
                "end": one.end,
                "sets": list(one.sets),
                "parameters": [_parameter(parameter) for parameter in one.parameters],
            }
            for one in (manifest.controllers if manifest else ())
        ],
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    shown = parameter.type.format
    return {
        "name": parameter.name,
        "type": parameter.type.kind,
        "required": parameter.required,
        "default": None if parameter.default is None else shown(parameter.default),
        "min": None if parameter.minimum is None else shown(parameter.minimum),
        "max": None if parameter.maximum is None else shown(parameter.maximum),
        "help": parameter.help,
    }
