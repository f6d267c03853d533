# SPDX-License-Identifier: Apache-2.0
"""Write docs/reference/bpf-headers.md from the comments of the BPF headers.

``python tools/header_reference.py`` prints it. Raises LookupError at a public thing without a comment, and at
a constant in a comment that no header of the page defines.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INCLUDE = ROOT / "bpf_common" / "src" / "emptcp_bpf_common" / "include" / "emptcp"

HEADERS = {
    "selector.h": "Selectors",
    "actor.h": "Actors and companions",
    "key.h": "Keys of sets and maps",
    "socket.h": "Socket companions",
    "packet.h": "Reading a packet",
    "option.h": "MPTCP options",
    "kind.h": "TCP options of any kind",
    "address.h": "Addresses and ports",
    "connection.h": "Connections",
    "change.h": "Changing a packet",
    "redirect.h": "Sending elsewhere",
    "event.h": "Events and time",
    "abi.h": "What a fragment is given",
}
"""The headers with something public, in the order of the page."""

WHOLE = ("abi.h", "address.h", "key.h", "option.h")
"""Headers all of whose types are public; of the others those are that public functions name."""

HEAD = """\
# The BPF headers

Generated from the comments of the headers by `tools/header_reference.py`; a test holds it to them.

`<emptcp/selector.h>`, `<emptcp/actor.h>` and `<emptcp/key.h>` bring what reads packets, an actor also what
changes them; the other headers are included where they are used. One source serves XDP and TC. `pkt` is the
handle that the macro gives to the body; `pkt->parsed` is a `struct emptcp_pkt`, `pkt->flow` a
`struct emptcp_flow`, the head of the subflow's entry in the flow table, or `NULL` for a stage without state.
What the parser makes of a packet, what stages may change and how they share: [packets](packets.md).
"""

COMMENT = r"(?:/\*(?P<comment>(?:[^*]|\*(?!/))*)\*/\n)?"
FUNCTION = re.compile(
    rf"^{COMMENT}EMPTCP_PUBLIC (?P<code>[\w *]*?\b(?P<name>emptcp_\w+)\([^;{{]*\))\s*\{{", re.M
)
MACRO = re.compile(
    rf"^{COMMENT}#define (?P<code>(?P<name>EMPTCP_\w+)\((?:\w+, )?(?:pkt|sock)\b[^)\n]*\))", re.M
)
TYPE = re.compile(
    rf"^{COMMENT}(?P<code>(?P<name>(?:struct|enum) emptcp_\w+) \{{[^\n]*\n.*?^\}}[^;\n]*;)",
    re.M | re.S,
)
CONSTANT = re.compile(
    rf"^{COMMENT}#define (?P<name>EMPTCP_\w+)[ \t]+(?P<value>[^\n/]+?)(?:[ \t]*/\*(?P<trailing>.*)\*/)?$",
    re.M,
)


@dataclass(frozen=True)
class Thing:
    """Something public: its name, its declaration, what the header says about it."""

    name: str
    code: str
    text: str
    at: int


def page(include: Path = INCLUDE) -> str:
    """Return the page."""
    for path in sorted(include.glob("*.h")):
        if path.name not in HEADERS and FUNCTION.search(path.read_text(encoding="utf-8")):
            raise LookupError(f"<emptcp/{path.name}> has something public, and is not in HEADERS")
    sources = {name: (include / name).read_text(encoding="utf-8") for name in HEADERS}
    wanted = named_types(sources)
    sections = [section(name, source, wanted) for name, source in sources.items()]
    text = "\n".join([HEAD, *sections])
    return text + constants(text, sources)


def section(name: str, source: str, wanted: set[str]) -> str:
    """Return what a header says of itself, a table of what can be called, and the types that go with it."""
    called = documented(name, callable_things(source))
    shown = documented(name, (one for one in types(source) if name in WHOLE or one.name in wanted))
    lines = [f"## {HEADERS[name]}: `<emptcp/{name}>`\n", markdown(introduction(name, source))]
    if called:
        lines += ["| | |", "| --- | --- |", *(row(one) for one in called), ""]
    for one in shown:
        lines += [f"**`{one.name}`**: {inline(one.text)}\n", "```c", one.code, "```\n"]
    return "\n".join(lines)


def documented(header: str, things: Iterable[Thing]) -> list[Thing]:
    """Return things of a header. Raises LookupError where one has no comment."""
    found = list(things)
    for one in found:
        if not one.text:
            raise LookupError(f"<emptcp/{header}> does not say what {one.name} is")
    return found


def callable_things(source: str) -> list[Thing]:
    """Return a header's public functions and macros, in its order."""
    found = [
        Thing(match["name"], " ".join(match["code"].split()), plain(match["comment"] or ""), match.start())
        for match in [*FUNCTION.finditer(source), *MACRO.finditer(source)]
    ]
    return sorted(found, key=lambda one: one.at)


def types(source: str) -> list[Thing]:
    """Return a header's structs and enums."""
    return [
        Thing(match["name"], match["code"].expandtabs(8), plain(match["comment"] or ""), match.start())
        for match in TYPE.finditer(source)
    ]


def named_types(sources: dict[str, str]) -> set[str]:
    """Return the types that public functions and the types that are shown name."""
    known = {one.name: one.code for source in sources.values() for one in types(source)}
    found: set[str] = set()
    fresh = {one.code for source in sources.values() for one in callable_things(source)}
    while fresh:
        named = {name for code in fresh for name in re.findall(r"\b(?:struct|enum) emptcp_\w+", code)}
        named = (named & known.keys()) - found
        fresh = {known[name] for name in named}
        found |= named
    return found


def constants(text: str, sources: dict[str, str]) -> str:
    """Return a table of the constants that a page names. Raises LookupError at a name that is nothing."""
    found = {match["name"]: match for source in sources.values() for match in CONSTANT.finditer(source)}
    named = set(re.findall(r"\bEMPTCP_[A-Z0-9_]+\b", text))
    explained = set(re.findall(r"^\s+(EMPTCP_[A-Z0-9_]+) =", text, re.M)) | set(
        re.findall(r"\| `(EMPTCP_[A-Z0-9_]+)\(", text)
    )
    lines = ["## Constants\n", "| | |", "| --- | --- |"]
    for name in sorted(named - explained - {"EMPTCP_ON_WIRE"}):
        if name not in found:
            raise LookupError(f"a comment names {name}, which no public header defines")
        match = found[name]
        said = plain(match["comment"] or match["trailing"] or "")
        lines.append(f"| `{name}` | `{match['value'].strip()}`{': ' + inline(said) if said else ''} |")
    return "\n".join(["", *lines, ""])


def introduction(name: str, source: str) -> str:
    """Return what a header says of itself. Raises LookupError when it says nothing."""
    found = re.match(r"/\*[^\n]*\*/\n/\*\n(.*?)\n \*/", source, re.S)
    if not found:
        raise LookupError(f"<emptcp/{name}> does not say what it is for")
    return "\n".join(line.removeprefix(" *").removeprefix(" ") for line in found[1].splitlines())


def plain(comment: str) -> str:
    """Return a comment as one line of text."""
    return " ".join(" ".join(line.strip().removeprefix("*") for line in comment.splitlines()).split())


def row(one: Thing) -> str:
    """Return the row of something that can be called."""
    return f"| `{one.code}` | {inline(one.text)} |".replace("||", "\\|\\|")


def inline(text: str) -> str:
    """Return text as Markdown: names as code, where they are not yet."""
    parts = text.split("`")
    parts[::2] = [
        re.sub(r"\b((?:EMPTCP|emptcp)_\w+(?:\(\))?|\w+->\w+|parsed->\w+|[a-z]+ = \[[^]]*\])", r"`\1`", part)
        for part in parts[::2]
    ]
    return "`".join(parts).replace("<emptcp/", "\\<emptcp/")


def markdown(text: str) -> str:
    """Return a comment of paragraphs and, one tab further in, of code as Markdown."""
    lines: list[str] = []
    for block in re.split(r"\n\n(?=\S)|(?<=[^\s;])\n\n(?=\t)", text):
        if block.startswith("\t"):
            lines += ["```c", textwrap.dedent(block).expandtabs(8), "```\n"]
        else:
            lines += [inline(block) + "\n"]
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(), end="")
