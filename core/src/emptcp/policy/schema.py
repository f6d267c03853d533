# SPDX-License-Identifier: Apache-2.0
"""The policy file as JSON Schema, made from the tables that the reader itself uses.

``python -m emptcp.policy.schema`` prints what is published as ``docs/reference/policy-file.schema.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from emptcp.policy import file, model
from emptcp.policy.check import LARGEST_TABLE, LONGEST_NAME
from emptcp.policy.tokens import DECLARED_NAME

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean", "default": False}
TEXT_OR_NUMBER: Schema = {"type": ["string", "number"]}
TEXTS: Schema = {"type": "array", "items": TEXT}
ONE_OR_MORE: Schema = {"oneOf": [TEXT, {**TEXTS, "minItems": 1}]}
NAME: Schema = {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME}


def table(keys: Iterable[str], described: Mapping[str, Schema], required: Iterable[str] = ()) -> Schema:
    """Return the schema of a table with exactly ``keys``, each of which is ``described``."""
    properties = {key: described[key] for key in keys}
    found: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**found, "required": list(required)} if required else found


def policy_file() -> Schema:
    """Return the schema of a whole policy file."""
    described = {
        "table": {**NAME, "description": "the table that this file owns"},
        "requires": {
            "oneOf": [TEXT, TEXTS],
            "description": "distributions that must be there, their plugins enabled: NAME>=VERSION",
        },
        "guard_window": {
            **TEXT,
            "default": "30s",
            "description": "a time: how long `emptcp apply` watches for harm; 0s does not",
        },
        "engine": {**choice(model.ENGINES), "default": "fused"},
        "tail": {
            **table(file.TAIL_KEYS, {"carrier": {**choice(model.CARRIERS), "default": "per-cpu"}}),
            "description": "what carries the chain context of the engine tail",
        },
        "exact": {**FLAG, "description": "apply also drops entries that were added at run time"},
        "policy": {"type": "array", "items": _policy()},
        "chain": _named(table(file.CHAIN_KEYS, {"do": _do()}, ["do"])),
        "set": _named(_set()),
        "map": _named(_map()),
        "path": _named(_path()),
        "controller": {"type": "array", "items": _controller()},
    }
    return {"$schema": DIALECT, "title": "emptcp policy file", **table(file.TOP_KEYS, described, ["table"])}


def choice(values: Iterable[str]) -> Schema:
    """Return the schema of a string that is one of ``values``."""
    return {"type": "string", "enum": list(values)}


def choices(values: Iterable[str]) -> Schema:
    """Return the schema of one of ``values``, or a list of different ones."""
    one = choice(values)
    return {"oneOf": [one, {"type": "array", "items": one, "minItems": 1, "uniqueItems": True}]}


def _policy() -> Schema:
    described = {
        "name": NAME,
        "hook": choices(model.HOOKS),
        "dev": {**ONE_OR_MORE, "description": "names or globs of devices"},
        "netns": {"type": ["string", "integer"], "description": "a namespace's name, path or pid"},
        "backend": {**choice(model.BACKENDS), "default": "auto"},
        "optional": {**FLAG, "description": "a device that is not there is waited for"},
        "unsafe": {**FLAG, "description": "allows actors that can break connections"},
        "when": _expression(),
        "do": _do(),
    }
    return table(file.POLICY_KEYS, described, ["name", "hook", "dev", "do"])


def _expression() -> Schema:
    return {**TEXT, "description": "an expression; see policy-grammar.ebnf"}


def _do() -> Schema:
    return {**ONE_OR_MORE, "description": "actors, or at the end 'goto CHAIN'; see policy-grammar.ebnf"}


def _storage() -> Schema:
    return {
        "key": {**TEXT, "description": "a key that a plugin provides, as subflow or ip_pair"},
        "size": {"type": "integer", "minimum": 1, "maximum": LARGEST_TABLE, "default": 65536},
        "timeout": {
            **TEXT_OR_NUMBER,
            "description": "a time, from when an entry was added; without it entries stay",
        },
        "lru": {**FLAG, "description": "a full table drops the entry used least recently"},
    }


def _set() -> Schema:
    return table(file.SET_KEYS, {**_storage(), "entries": TEXTS}, ["key"])


def _map() -> Schema:
    kind = {**TEXT, "description": "the type of the parameters that read the values"}
    entries = {"type": "object", "additionalProperties": TEXT_OR_NUMBER}
    return table(file.MAP_KEYS, {**_storage(), "type": kind, "entries": entries}, ["key", "type"])


def _path() -> Schema:
    described = {
        "dev": {**ONE_OR_MORE, "description": "names or globs of the devices that it leaves by"},
        "local": {**TEXT, "description": "this host's address on it"},
        "links": {**ONE_OR_MORE, "description": "what it is made of: paths that name one link share it"},
        "rate": {**TEXT_OR_NUMBER, "description": "what it carries, as in 20mbit"},
        "cost": {**TEXT_OR_NUMBER, "description": "a whole number: the more, the later it is used"},
        "quota": {**TEXT_OR_NUMBER, "description": "bytes that may be sent on it, as in 5g"},
    }
    return table(file.PATH_KEYS, described)


def _controller() -> Schema:
    own = {"type": "object", "description": "the controller's own parameters"}
    described = {
        "name": NAME,
        "use": {**TEXT, "description": "a controller that a plugin provides, as ecf"},
        "when": {**_expression(), "description": "which subflows; those of every connection without it"},
        "paths": {**ONE_OR_MORE, "description": "names of [path.NAME], in the order that it is to see"},
        "netns": {"type": ["string", "integer"], "description": "a namespace's name, path or pid"},
        "interval": {**TEXT_OR_NUMBER, "description": "the time between two ticks, 10ms to 1h"},
        "steers": {
            **choice(model.STEERED),
            "default": "us",
            "description": "whose sending: this host's, or the other end's",
        },
        "on_failure": {
            **choice(model.ON_FAILURE),
            "default": "keep",
            "description": "what becomes of its settings when it fails",
        },
        "with": own,
    }
    return table(file.CONTROLLER_KEYS, described, ["name", "use"])


def _named(one: Schema) -> Schema:
    names = {"pattern": f"^{DECLARED_NAME.pattern}$", "maxLength": LONGEST_NAME}
    return {"type": "object", "propertyNames": names, "additionalProperties": one}


def text(schema: Schema) -> str:
    """Return a schema as it is published."""
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    print(text(policy_file()), end="")
