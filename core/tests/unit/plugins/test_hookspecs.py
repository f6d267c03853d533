# SPDX-License-Identifier: Apache-2.0
"""The hooks' documentation: every argument is there, and every example can be copied."""

from __future__ import annotations

import inspect
import re
import textwrap
from types import ModuleType
from typing import Any

import pytest

from emptcp import api, hookspecs
from emptcp.plugins.manager import Manager

HOOKS = {name: spec for name, spec in vars(hookspecs).items() if name.startswith("emptcp_")}


def example(spec: Any) -> str:
    """Return the code of a hook's docstring."""
    match = re.search(r"\.\. code-block:: python\n\n(.*)", inspect.getdoc(spec) or "", re.DOTALL)
    assert match is not None
    return textwrap.dedent(match[1])


@pytest.mark.parametrize("name", HOOKS)
def test_every_argument_of_a_hook_is_documented(name: str) -> None:
    for argument in inspect.signature(HOOKS[name]).parameters:
        assert f":param {argument}:" in (HOOKS[name].__doc__ or "")


@pytest.mark.parametrize("name", HOOKS)
def test_the_example_of_a_hook_is_an_implementation_of_it(name: str) -> None:
    module = ModuleType("example")
    module.__dict__["hookimpl"] = api.hookimpl
    exec(compile(example(HOOKS[name]), name, "exec"), module.__dict__)
    manager = Manager()
    manager.register(module, "example")
    assert [impl.plugin_name for impl in getattr(manager.hook, name).get_hookimpls()] == ["example"]


def test_the_diagram_of_the_module_names_every_hook() -> None:
    assert set(re.findall(r"emptcp_[a-z_]+", hookspecs.__doc__ or "")) == set(HOOKS)


@pytest.mark.parametrize("name", api.__all__)
def test_all_that_the_api_offers_is_there(name: str) -> None:
    assert getattr(api, name) is not None


def test_what_the_api_does_not_offer_gets_a_hint() -> None:
    with pytest.raises(AttributeError, match="did you mean 'subflows'"):
        _ = api.sublows
