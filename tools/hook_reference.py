# SPDX-License-Identifier: Apache-2.0
"""Write docs/reference/hooks.md from the docstrings of emptcp.hookspecs and emptcp.api.

``python tools/hook_reference.py`` prints it. Raises LookupError at a public thing without documentation.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from types import GenericAlias
from typing import Any

from emptcp import api, hookspecs

HEAD = """\
# Hooks and the plugins' API

Generated from the docstrings by `tools/hook_reference.py`; a test holds it to them.
"""


def page() -> str:
    """Return the page."""
    parts = [HEAD, introduction(), "## The hooks\n"]
    parts += [hook(name, spec) for name, spec in hooks().items()]
    parts += ["## What a plugin may import\n", "\n".join(offered()), ""]
    return "\n".join(parts)


def hooks() -> dict[str, Callable[..., Any]]:
    """Return the hook specifications, in the module's order."""
    return {name: spec for name, spec in vars(hookspecs).items() if hasattr(spec, "emptcp_spec")}


def introduction() -> str:
    """Return what the module says, its diagram last."""
    _title, _, rest = documentation(hookspecs, "emptcp.hookspecs").partition("\n\n")
    said, _, diagram = rest.partition("When each is called::\n\n")
    lines = ["## When each is called\n", "```", textwrap.dedent(diagram).strip("\n"), "```\n"]
    return markdown(said) + "\n".join(lines)


def hook(name: str, spec: Callable[..., Any]) -> str:
    """Return the section of one hook: what it is for, its arguments, an example."""
    text, _, example = documentation(spec, name).partition(".. code-block:: python\n\n")
    body, fields = split_fields(text)
    missing = [one for one in inspect.signature(spec).parameters if f"param {one}" not in fields]
    if missing or not example:
        raise LookupError(f"{name} does not document {', '.join(missing) or 'an example'}")
    rows = [f"- **{label(field)}** {markdown(said)}" for field, said in fields.items()]
    arguments = ", ".join(inspect.signature(spec).parameters)
    code = ["```python", textwrap.dedent(example).strip("\n"), "```"]
    head = [f"### `{name}({arguments})`\n", markdown(body).strip() + "\n"]
    return "\n".join([*head, *rows, "", *code, ""])


def split_fields(text: str) -> tuple[str, dict[str, str]]:
    """Return a docstring's text, and its fields (``param stage``, ``returns``) with what they say."""
    body, *parts = re.split(r"^:(\w+(?: \w+)?):", text, flags=re.MULTILINE)
    return body, {name: " ".join(said.split()) for name, said in zip(parts[::2], parts[1::2], strict=True)}


def label(field: str) -> str:
    kind, _, name = field.partition(" ")
    return f"`{name}`:" if kind == "param" else f"{kind} `{name}`:" if name else f"{kind}:"


def offered() -> Iterator[str]:
    """Yield a table of what emptcp.api offers."""
    yield "| `emptcp.api` | what it is |"
    yield "| --- | --- |"
    for name in api.__all__:
        yield f"| `{name}` | {first_line(name, getattr(api, name))} |"


def first_line(name: str, offer: Any) -> str:
    """Return the first sentence about something that the API offers."""
    if isinstance(offer, int):
        return f"{offer}, the version of a contract"
    if isinstance(offer, GenericAlias):
        return f"short for `{offer}`"
    line = documentation(offer, f"emptcp.api.{name}").partition("\n\n")[0]
    return markdown(" ".join(line.split())).replace("|", "\\|")


def documentation(of: Any, name: str) -> str:
    """Return a docstring. Raises LookupError when there is none."""
    found = inspect.getdoc(of)
    if not found:
        raise LookupError(f"{name} has no documentation")
    return found


def markdown(text: str) -> str:
    """Return reStructuredText of docstrings as Markdown: references as code."""
    text = re.sub(r":(?:func|meth):`[~.]?(?:[\w.]+\.)?(\w+)`", r"`\1()`", text)
    text = re.sub(r":\w+:`[~.]?(?:[\w.]+\.)?(\w+)`", r"`\1`", text)
    return text.replace("``", "`")


if __name__ == "__main__":
    print(page(), end="")
