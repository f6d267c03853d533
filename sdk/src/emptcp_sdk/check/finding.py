# SPDX-License-Identifier: Apache-2.0
"""What a check found, and why each rule is there."""

from __future__ import annotations

from dataclasses import dataclass

ERROR, WARNING = "error", "warning"

RULES = {
    "compile": (ERROR, "operators' machines have no compiler, so the wheel brings the object"),
    "entry-point": (
        ERROR,
        "emptcp finds plugins by entry points, whose package it imports only when enabled",
    ),
    "manifest": (ERROR, "emptcp reads all that it tells of a plugin from its manifest"),
    "object": (ERROR, "the manifest names an object, and policies can't run without it"),
    "licence": (ERROR, "core joins it into a program that it loads as 'Dual BSD/GPL'"),
    "btf": (ERROR, "parameters are found by BTF, and a verifier's message names the C line by it"),
    "abi": (ERROR, "core hands packets only to fragments made for its chain ABI"),
    "fragment": (ERROR, "a stage is a fragment for each back-end"),
    "struct": (ERROR, "core fills the struct by the manifest's parameters"),
    "parameter": (ERROR, "core packs a value into the struct's member of the parameter's name"),
    "range": (
        ERROR,
        "what the manifest allows must fit the struct, or policies are refused",
    ),
    "map": (ERROR, "maps are shared by their BTF types"),
    "key": (ERROR, "a key is written to sets and maps as its fields say"),
    "answer": (ERROR, "core takes an unknown verdict for NEXT, and a selector's answer for 0 or 1"),
    "verdict": (ERROR, "operators judge a plugin by the verdicts that its manifest declares"),
    "verdict-unused": (WARNING, "operators judge a plugin by the verdicts that its manifest declares"),
    "stack": (ERROR, "a fragment shares the kernel's 512 bytes of stack with core, and has 256 of them"),
    "instructions": (
        WARNING,
        "a chain is one program of some 24,000 instructions, which all its stages share",
    ),
    "help": (WARNING, "it is what an operator reads in 'emptcp plugins info'"),
    "module": (ERROR, "emptcp imports the module that the manifest names, once the plugin is enabled"),
    "hook": (ERROR, "emptcp calls an implementation by its name, with the arguments that the hook has"),
    "import": (WARNING, "only emptcp.api is kept from release to release"),
    "record": (ERROR, "the record beside an object tells what it was compiled from, and by what"),
    "wheel-file": (ERROR, "a file outside of the package can change what other programs do"),
    "wheel-tag": (WARNING, "an object is the same on every machine, so one wheel serves all"),
    "verifier": (ERROR, "the kernel loads only what its verifier can follow"),
    "load": (ERROR, "a stage must load on every hook that its manifest names"),
}
"""Rule -> how bad it is, and why it is one."""


@dataclass(frozen=True)
class Finding:
    """What (``sentence``) is wrong where (``file:line``, or what of it is known), and what mends it."""

    rule: str
    where: str
    sentence: str
    fix: str

    @property
    def level(self) -> str:
        """``error`` or ``warning``."""
        return RULES[self.rule][0]

    @property
    def why(self) -> str:
        """Why there is such a rule."""
        return RULES[self.rule][1]


@dataclass(frozen=True)
class Measured:
    """What was measured of a stage: of its code (``place`` is a back-end), or loaded at a place.

    ``stack`` is bytes; ``steps`` are instructions that the verifier looked at, of the fused program
    with core's parser; ``ns`` is one packet's, net of an empty program's.
    """

    stage: str
    place: str
    instructions: int | None = None
    stack: int | None = None
    steps: int | None = None
    ns: float | None = None
