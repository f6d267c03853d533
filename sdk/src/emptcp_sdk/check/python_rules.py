# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a plugin's Python side, read and never run."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

from emptcp import hookspecs
from emptcp.errors import did_you_mean

from .finding import Finding
from .subject import Subject

HOOKS = {
    name: tuple(inspect.signature(one).parameters)
    for name, one in vars(hookspecs).items()
    if hasattr(one, f"{hookspecs.PROJECT}_spec")
}
"""Each hook and its arguments."""


def findings(subject: Subject) -> Iterator[Finding]:
    """Yield what is wrong with the module that the manifest names, and with what the package imports."""
    if subject.manifest.module:
        yield from _module(subject, subject.manifest.module)
    for file in sorted(subject.folder.rglob("*.py")):
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", 0) or 0
            fix = "Mend it: emptcp would report it at each start."
            yield Finding("module", subject.shown(file, line), f"it is no Python: {error}", fix)
            continue
        yield from _imports(subject, file, tree)


def _module(subject: Subject, name: str) -> Iterator[Finding]:
    package, *rest = name.split(".")
    where = subject.in_manifest("module")
    if package != subject.package:
        fix = "Name a module of the plugin's own package."
        yield Finding("module", where, f"module '{name}' is outside package '{subject.package}'", fix)
        return
    path = subject.folder.joinpath(*rest)
    files = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
    if not files:
        yield Finding("module", where, f"there is no module '{name}'", "Name the module that has the hooks.")
        return
    try:
        tree = ast.parse(files[0].read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):
        return  # told for each file
    marked = [one for one in tree.body if isinstance(one, ast.FunctionDef) and _is_marked(one)]
    if not marked:
        fix = "Mark the hooks with @hookimpl, or leave 'module' out of the manifest."
        yield Finding("hook", subject.shown(files[0], 1), f"module '{name}' implements no hook", fix)
    for function in marked:
        yield from _hook(subject, files[0], function)


def _is_marked(function: ast.FunctionDef) -> bool:
    names = [one.func if isinstance(one, ast.Call) else one for one in function.decorator_list]
    return any((getattr(one, "id", "") or getattr(one, "attr", "")) == "hookimpl" for one in names)


def _hook(subject: Subject, file: Path, function: ast.FunctionDef) -> Iterator[Finding]:
    where = subject.shown(file, function.lineno)
    if function.name not in HOOKS:
        known = did_you_mean(function.name, HOOKS) or f"Known are: {', '.join(sorted(HOOKS))}."
        yield Finding("hook", where, f"there is no hook '{function.name}'", known)
        return
    offered = HOOKS[function.name]
    for argument in (*function.args.posonlyargs, *function.args.args):
        if argument.arg not in offered:
            sentence = f"hook '{function.name}' has no argument '{argument.arg}'"
            yield Finding("hook", where, sentence, f"It has: {', '.join(offered)}.")


def _imports(subject: Subject, file: Path, tree: ast.Module) -> Iterator[Finding]:
    for node in ast.walk(tree):
        for name in _imported(node):
            if name.split(".")[0] == "emptcp" and name.split(".")[:2] != ["emptcp", "api"]:
                where = subject.shown(file, getattr(node, "lineno", 0))
                fix = "Import what emptcp.api offers."
                yield Finding("import", where, f"it imports '{name}'", fix)


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        if node.module == "emptcp":
            yield from (f"emptcp.{alias.name}" for alias in node.names)
        else:
            yield node.module
