# SPDX-License-Identifier: Apache-2.0
"""Draw selectors and actors as a policy writes them, from what their manifests say of parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random

from emptcp.plugins import manifest
from emptcp.plugins.catalog import Catalog, StageType
from emptcp.plugins.manifest import Parameter
from emptcp.policy.values import List

Told = Mapping[str, Sequence[str]]
"""Parameter -> the values to choose from, as a policy writes them, in place of those of its type."""

_INTEGERS = (0, 1, 2, 7, 30, 253, 254, 255, 65535)
_BY_TYPE: dict[str, Callable[[Random], str]] = {
    "bool": lambda random: random.choice(("true", "false")),
    "rate": lambda random: random.choice(("8kbit", "8mbit", "1gbit")),
    "size": lambda random: random.choice(("1", "1500", "64k")),
    "time": lambda random: random.choice(("1ms", "20ms", "1s")),
    "percent": lambda random: random.choice(("0%", "50%", "100%")),
    "port": lambda random: random.choice(("80", "5001", "40000")),
    "ipaddr": lambda random: random.choice(("10.0.0.1", "10.0.0.2", "fd00::1")),
    "prefix": lambda random: random.choice(("10.0.0.0/8", "10.0.0.1", "fd00::/8", "0.0.0.0/0")),
    "dev": lambda _random: "lo",
    "string": lambda _random: "'text'",
}


def below(folder: Path, catalog: Catalog) -> list[StageType]:
    """Return the stages of all plugins whose manifests are in packages below a folder.

    A plugin may have none: controllers look at no packet. Raises :class:`LookupError` when one of these
    plugins is not installed and enabled.
    """
    packages = {path.parent for path in folder.glob("*/src/*/emptcp.toml") if manifest.load(path).stages}
    found = [stage for stage in catalog if stage.object.parent in packages]
    missing = packages - {stage.object.parent for stage in found}
    if missing or not found:
        raise LookupError(f"no stages of {', '.join(map(str, missing)) or folder} are installed")
    return found


def text(stage: StageType, random: Random, told: Told | None = None) -> str:
    """Return the stage with some of its parameters, as ``remove_option(kind=253)``."""
    parts = []
    for parameter in stage.declaration.parameters:
        if parameter.type.kind == "chain" or not (parameter.required or random.random() < 0.6):
            continue
        value = _value(parameter, random, (told or {}).get(parameter.name, ()))
        parts.append(value if parameter.many else f"{parameter.name}={value}")
    return f"{stage.name}({', '.join(parts)})"


def least(stage: StageType, random: Random) -> str:
    """Return the stage with no parameters but those that it requires."""
    wanted = [one for one in stage.declaration.parameters if one.required]
    values = ((one, _value(one, random, ())) for one in wanted)
    written = (value if one.many else f"{one.name}={value}" for one, value in values)
    return f"{stage.name}({', '.join(written)})"


def _value(parameter: Parameter, random: Random, told: Sequence[str]) -> str:
    names = told or [f"'{name}'" for name in sorted(getattr(parameter.type, "names", None) or ())]
    if names:
        count = random.randrange(1, len(names) + 1) if parameter.many else 1
        return ", ".join(random.sample(names, count))
    if isinstance(parameter.type, List):
        items = range(random.randrange(1, parameter.type.length + 1))
        return f"[{', '.join(_BY_TYPE[parameter.type.of.kind](random) for _ in items)}]"
    if parameter.type.kind == "int":
        low, high = parameter.minimum or 0, parameter.maximum
        fitting = [one for one in _INTEGERS if low <= one and (high is None or one <= high)]
        return str(random.choice([*fitting, low]))
    return _BY_TYPE[parameter.type.kind](random)
