# SPDX-License-Identifier: Apache-2.0
"""The manifest as JSON Schema, made from the tables that the reader itself uses.

``python -m emptcp.plugins.schema`` prints what is published as
``docs/reference/plugin-manifest.schema.json``.
"""

from __future__ import annotations

from emptcp.plugins import changes, manifest, setters, sharing
from emptcp.plugins.versions import CHAIN_ABI, HOOK_API, MANIFEST_SCHEMA
from emptcp.policy import model, values
from emptcp.policy.keys import FIELDS
from emptcp.policy.schema import DIALECT, FLAG, TEXT, TEXTS, Schema, choice, choices, table, text
from emptcp.policy.tokens import NAME
from emptcp.pybpf.feature_table import FEATURES

_NAME: Schema = {"type": "string", "pattern": f"^{NAME.pattern}$"}
_VALUE: Schema = {"type": ["string", "number", "boolean", "array"]}


def plugin_manifest() -> Schema:
    """Return the schema of a manifest."""
    described: Schema = {
        "schema": {"const": MANIFEST_SCHEMA},
        "abi": {"const": CHAIN_ABI, "description": "EMPTCP_CHAIN_ABI of the headers it is compiled with"},
        "hook_api": {
            "type": "integer",
            "maximum": HOOK_API,
            "description": "the oldest HOOK_API it runs with",
        },
        "name": {**_NAME, "description": "the name of the entry point"},
        "summary": TEXT,
        "object": {"type": "string", "pattern": r"^[^/]+\.bpf\.o$"},
        "module": {**TEXT, "description": "the module with the hooks, within the plugin's package"},
        "resident": {**FLAG, "description": "needs 'emptcp run'"},
        **{kind: {"type": "array", "items": _stage(kind)} for kind in manifest.KINDS},
        "key": {"type": "array", "items": _key()},
        "controller": {"type": "array", "items": _controller()},
        **{kind: {"type": "array", "items": _declaration()} for kind in manifest.DECLARATIONS},
        "export": {"type": "array", "items": _export()},
        "import": {"type": "array", "items": _import()},
    }
    return {"$schema": DIALECT, "title": "emptcp.toml", **table(manifest.TOP_KEYS, described, ["name"])}


def _stage(kind: str) -> Schema:
    described = {
        "name": _NAME,
        "help": TEXT,
        "hooks": choices(model.HOOKS),
        "backends": {
            **choices(manifest.BACKENDS),
            "default": list(manifest.BACKENDS),
            "description": "where it works",
        },
        "reads": {**choices(manifest.READS), "default": ["options"]},
        "fragment": {**_NAME, "description": "the body's name in the object; the stage's without it"},
        "features": {**choices(tuple(FEATURES)), "description": "kernel features that it needs"},
        "parameter": {"type": "array", "items": _parameter()},
        "verdicts": {**choices(manifest.VERDICTS), "default": ["NEXT"]},
        "modifies": _modifies(),
        "unsafe": {**FLAG, "description": "can break connections"},
        "companion": {"type": "array", "items": _companion()},
    }
    return table(manifest.STAGE_KEYS[kind], described, ["name", "hooks"])


def _modifies() -> Schema:
    options = "|".join((*changes.SUBTYPES, rf"\$({NAME.pattern})"))
    pattern = rf"^({'|'.join(changes.FIELDS)}|(({'|'.join(changes.VERBS)}) )?({options}))$"
    said = "fields, and options by MPTCP subtype or by the $parameter that names them, that the actor changes"
    one: Schema = {"type": "string", "pattern": pattern}
    return {"type": "array", "items": one, "uniqueItems": True, "description": said}


def _parameter() -> Schema:
    masks = {"type": ["integer", "array"], "items": {"type": "integer"}}
    described = {
        "name": {**_NAME, "description": "also the member of the stage's struct"},
        "type": {**TEXT, "description": f"one of {', '.join(values.TYPES)}"},
        "help": TEXT,
        "default": _VALUE,
        "required": FLAG,
        "min": _VALUE,
        "max": _VALUE,
        "unit": {
            **choice(("ns", "us", "ms", "s", "byte", "bit")),
            "description": "what a time or rate counts",
        },
        "values": {"type": "object", "additionalProperties": masks},
        "of": {**TEXT, "description": "the type within a list(n)", "default": "int"},
        "many": {**FLAG, "description": "takes all values that are given without a name"},
        "plain_tcp": {**TEXTS, "description": "values that want packets without MPTCP"},
        "resident": {**FLAG, "description": "values other than the default need 'emptcp run'"},
    }
    return table(manifest.PARAMETER_KEYS, described, ["name", "type"])


def _companion() -> Schema:
    described = {
        "hook": choice(model.HOOKS),
        "fragment": _NAME,
        "only": {
            "type": "object",
            "additionalProperties": TEXTS,
            "description": "parameter and values: wanted where one of them is given",
        },
    }
    return table(manifest.COMPANION_KEYS, described, ["hook", "fragment"])


def _key() -> Schema:
    described = {
        "name": _NAME,
        "help": TEXT,
        "fragment": {**_NAME, "description": "the body's name in the object; the key's without it"},
        "reads": {**choices(manifest.READS), "default": ["key"]},
        "fields": {
            "type": "array",
            "items": choice(FIELDS),
            "minItems": 1,
            "description": "what the key is made of, in this order; written with '-' between",
        },
        "symmetric": {**FLAG, "description": "the lower half first: one key for both directions"},
    }
    return table(manifest.KEY_KEYS, described, ["name", "fields"])


def _controller() -> Schema:
    described = {
        "name": _NAME,
        "help": TEXT,
        "class": {
            "type": "string",
            "pattern": "^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$",
            "description": "package.module:Class, a subclass of emptcp.api.Controller",
        },
        "end": {
            **choice(manifest.ENDS),
            "default": "any",
            "description": "at which end of the data it must run; hop: between the ends",
        },
        "sets": {
            **choices(tuple(setters.SETTERS)),
            "default": list(setters.UNLESS_TOLD),
            "description": "what it sets on subflows, or on connections for each path (block)",
        },
        "blocked": {
            **FLAG,
            "description": "with block: no path takes further subflows until it is allowed",
        },
        "parameter": {"type": "array", "items": _parameter()},
    }
    return table(manifest.CONTROLLER_KEYS, described, ["name", "class"])


def _declaration() -> Schema:
    return table(manifest.DECLARATION_KEYS, {"name": TEXT, "help": TEXT}, ["name"])


def _export() -> Schema:
    described = {
        "map": {**_NAME, "description": "a map of the object, which other plugins may use"},
        "help": TEXT,
    }
    return table(sharing.EXPORT_KEYS, described, ["map"])


def _import() -> Schema:
    described = {
        "map": {**_NAME, "description": "a map that the other plugin exports"},
        "from": {**TEXT, "description": "the other plugin: NAME, or DIST:NAME"},
        "as": {**_NAME, "description": "what this plugin's object calls it; its name there without it"},
    }
    return table(sharing.IMPORT_KEYS, described, ["map", "from"])


if __name__ == "__main__":
    print(text(plugin_manifest()), end="")
