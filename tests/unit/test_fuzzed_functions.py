# SPDX-License-Identifier: Apache-2.0
"""What plugins may call is fuzzed, and plugins call nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from emptcp_bpf_common import include_folder

ROOT = Path(__file__).parents[2]
FUZZED = ROOT / "bpf_common/tests/kernel/programs/fuzz.bpf.c"
HEADERS = sorted((include_folder() / "emptcp").glob("*.h"))
OF_SOCKETS = {"emptcp_again", "emptcp_keep_unsent", "emptcp_pace"}
"""Take no packet: sockets can't be had by a trial run. plugins/actor-rate-limit tries it on live ones."""

FUNCTION = re.compile(r"^EMPTCP_PUBLIC [\w *]*?\b(emptcp_\w+)\(([^;{]*)\)\s*\{", re.M)
MACRO = re.compile(r"^#define (EMPTCP_\w+)\(pkt, ", re.M)
CALL = re.compile(r"\b(emptcp_\w+|EMPTCP_OPTION|EMPTCP_SCRATCH)\(")


def public() -> dict[str, str]:
    """Names of public functions and macros, and their parameters."""
    texts = [path.read_text(encoding="utf-8") for path in HEADERS]
    marked = sum(text.count("\nEMPTCP_PUBLIC ") for text in texts)
    functions = {name: taken for text in texts for name, taken in FUNCTION.findall(text)}
    assert len(functions) == marked
    return functions | {name: "pkt" for text in texts for name in MACRO.findall(text)}


def test_there_are_public_functions() -> None:
    assert {"emptcp_rewrite", "emptcp_find_kind", "emptcp_connection", "EMPTCP_OPTION"} <= set(public())
    assert len(public()) > 35


def test_every_public_function_is_fuzzed() -> None:
    source = FUZZED.read_text(encoding="utf-8")
    sockets = {name for name, taken in public().items() if "struct emptcp_socket" in taken}
    assert sockets == OF_SOCKETS
    assert set(public()) - sockets - set(CALL.findall(source)) == set()


def test_plugins_call_no_function_that_is_not_public() -> None:
    sources = [
        path for plugins in ("plugins/*/src", "sdk/src") for path in ROOT.glob(f"{plugins}/**/*.bpf.c")
    ]
    assert len(sources) > 10
    called = {
        f"{path.parent.name}: {name}"
        for path in sources
        for name in CALL.findall(path.read_text(encoding="utf-8"))
        if name not in public()
    }
    assert called == set()
