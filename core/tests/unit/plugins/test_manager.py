# SPDX-License-Identifier: Apache-2.0
"""Hooks are called as pluggy calls them, and no plugin can harm another."""

from __future__ import annotations

import importlib.util
import logging
import py_compile
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pluggy
import pytest

from emptcp.api import EmptcpError, hookimpl
from emptcp.plugins import state
from emptcp.plugins.catalog import BoundStage, Catalog
from emptcp.plugins.manager import Failure, Manager
from emptcp.policy import when

Called = list[str]


@pytest.fixture
def manager() -> Manager:
    """Return a manager without plugins that keeps its failures to itself."""
    return Manager(report=lambda failure: None)


@pytest.fixture
def stage(site: Any) -> BoundStage:
    """Return a bound stage of plugin ``cap``."""
    site.add()
    state.enable("cap")
    return Catalog.of_enabled().bind(when.parse_stage("cap(1mbit)"))


def plugin(**implementations: Any) -> Any:
    """Return an object with hook implementations."""
    return SimpleNamespace(**implementations)


def appender(called: Called, word: str, **options: Any) -> Any:
    """Return an implementation of ``emptcp_applied`` that notes its word."""

    @hookimpl(**options)
    def emptcp_applied(change: object) -> None:
        called.append(word)

    return emptcp_applied


def test_every_plugin_is_called_the_last_loaded_first(manager: Manager) -> None:
    called: Called = []
    for word in ("a", "b"):
        manager.register(plugin(emptcp_applied=appender(called, word)), word)
    manager.hook.emptcp_applied(change="x")
    assert called == ["b", "a"]


def test_tryfirst_and_trylast_decide_the_order(manager: Manager) -> None:
    called: Called = []
    manager.register(plugin(emptcp_applied=appender(called, "first", tryfirst=True)), "first")
    manager.register(plugin(emptcp_applied=appender(called, "middle")), "middle")
    manager.register(plugin(emptcp_applied=appender(called, "last", trylast=True)), "last")
    manager.hook.emptcp_applied(change="x")
    assert called == ["first", "middle", "last"]


def test_a_wrapper_sees_the_result_and_may_change_it(manager: Manager) -> None:
    @hookimpl(specname="emptcp_format")
    def plain(stage: str) -> str:
        return f"plain {stage}"

    @hookimpl(wrapper=True)
    def emptcp_format(stage: str) -> Generator[None, str, str]:
        result = yield
        return f"[{result}]"

    manager.register(plugin(plain=plain), "plain")
    manager.register(plugin(emptcp_format=emptcp_format), "wrapper")
    assert manager.hook.emptcp_format(stage="s") == "[plain s]"


def test_an_implementation_may_take_fewer_arguments_than_the_hook_has(manager: Manager) -> None:
    @hookimpl
    def emptcp_validate(policy: str) -> None:
        raise EmptcpError(f"not {policy}")

    manager.register(plugin(emptcp_validate=emptcp_validate), "strict")
    with pytest.raises(EmptcpError, match="not home"):
        manager.hook.emptcp_validate(stage="s", policy="home")


def test_the_first_who_knows_formats_a_stage(manager: Manager) -> None:
    @hookimpl
    def emptcp_format(stage: str) -> str | None:
        return None

    manager.register(plugin(emptcp_format=emptcp_format), "none")
    assert manager.hook.emptcp_format(stage="s") is None


# Isolation


def failing(error: BaseException, **options: Any) -> Any:
    """Return an implementation of ``emptcp_applied`` that raises."""

    @hookimpl(**options)
    def emptcp_applied(change: object) -> None:
        raise error

    return emptcp_applied


@pytest.mark.parametrize("error", [ValueError("oh"), EmptcpError("no"), SystemExit(3), RecursionError()])
def test_a_hook_that_raises_is_reported_with_its_plugins_name_and_stops_nobody(error: BaseException) -> None:
    reported: list[Failure] = []
    manager, called = Manager(report=reported.append), Called()
    manager.register(plugin(emptcp_applied=appender(called, "before")), "before")
    manager.register(plugin(emptcp_applied=failing(error)), "broken")
    manager.register(plugin(emptcp_applied=appender(called, "after")), "after")
    manager.hook.emptcp_applied(change="x")
    assert called == ["after", "before"]
    assert [(failure.plugin, failure.hook, failure.error) for failure in reported] == [
        ("broken", "emptcp_applied", error)
    ]
    assert manager.failures == reported


def test_a_failure_is_one_line_of_warning(caplog: pytest.LogCaptureFixture) -> None:
    manager = Manager()
    manager.register(plugin(emptcp_applied=failing(ValueError("first\nsecond"))), "broken")
    with caplog.at_level(logging.WARNING):
        manager.hook.emptcp_applied(change="x")
    assert caplog.messages == ["plugin 'broken' failed in emptcp_applied (ValueError: first)"]


def test_an_interrupt_by_the_operator_is_no_plugins_failure(manager: Manager) -> None:
    manager.register(plugin(emptcp_applied=failing(KeyboardInterrupt())), "slow")
    with pytest.raises(KeyboardInterrupt):
        manager.hook.emptcp_applied(change="x")


def broken_before(stage: str) -> Generator[None, str, str]:
    """Fail before the others are called."""
    raise ValueError("before")
    yield


def broken_after(stage: str) -> Generator[None, str, str]:
    """Fail after the others were called."""
    yield
    raise ValueError("after")


def yields_twice(stage: str) -> Generator[None, str, str]:
    """Do what no wrapper may."""
    yield
    yield
    return "x"


@pytest.mark.parametrize("wrapper", [broken_before, broken_after, yields_twice])
def test_a_wrapper_that_fails_leaves_the_result_as_it_was(manager: Manager, wrapper: Any) -> None:
    @hookimpl
    def emptcp_format(stage: str) -> str:
        return "plain"

    manager.register(plugin(emptcp_format=emptcp_format), "plain")
    marked = hookimpl(wrapper=True, specname="emptcp_format")(wrapper)
    try:
        manager.register(plugin(wrapper=marked), "wrapper")
        assert manager.hook.emptcp_format(stage="s") == "plain"
        assert [failure.plugin for failure in manager.failures] == ["wrapper"]
    finally:
        del wrapper.emptcp_impl


def test_a_wrapper_may_take_a_refusal_back_or_pass_it_on(manager: Manager) -> None:
    @hookimpl(specname="emptcp_validate")
    def refuse(policy: str) -> None:
        raise EmptcpError("refused")

    @hookimpl(wrapper=True, specname="emptcp_validate")
    def forgive(policy: str) -> Generator[None, None, None]:
        try:
            yield
        except EmptcpError:
            if policy != "forgiven":
                raise

    manager.register(plugin(refuse=refuse), "strict")
    manager.register(plugin(forgive=forgive), "mild")
    manager.hook.emptcp_validate(stage="s", policy="forgiven")
    with pytest.raises(EmptcpError, match="refused"):
        manager.hook.emptcp_validate(stage="s", policy="other")
    assert manager.failures == []


def test_a_refusal_survives_a_wrapper_that_fails(manager: Manager) -> None:
    @hookimpl(specname="emptcp_validate")
    def refuse() -> None:
        raise EmptcpError("refused")

    @hookimpl(wrapper=True, specname="emptcp_validate")
    def clumsy() -> Generator[None, None, None]:
        try:
            yield
        except EmptcpError:
            raise ValueError("oh") from None

    manager.register(plugin(refuse=refuse), "strict")
    manager.register(plugin(clumsy=clumsy), "clumsy")
    with pytest.raises(EmptcpError, match="refused"):
        manager.hook.emptcp_validate(stage="s", policy="p")
    assert [failure.plugin for failure in manager.failures] == ["clumsy"]


# Registration


@pytest.mark.parametrize("name", ["emptcp_aplied", "emptcp_applied"])
def test_an_implementation_that_fits_no_hook_is_refused_whole(manager: Manager, name: str) -> None:
    called: Called = []

    @hookimpl(specname=name)
    def wrong(no_such_argument: object) -> None: ...

    module = plugin(emptcp_format=hookimpl(lambda: "x"), wrong=wrong, emptcp_applied=appender(called, "x"))
    with pytest.raises(pluggy.PluginValidationError):
        manager.register(module, "wrong")
    assert manager.names == []
    manager.hook.emptcp_applied(change="x")
    assert (called, manager.hook.emptcp_format(stage="s")) == ([], None)


def test_a_wrapper_without_a_yield_is_refused(manager: Manager) -> None:
    @hookimpl(wrapper=True)
    def emptcp_format(stage: str) -> str:
        return "x"

    with pytest.raises(pluggy.PluginValidationError, match="does not yield"):
        manager.register(plugin(emptcp_format=emptcp_format), "wrong")


def test_an_unloaded_plugin_is_called_no_more(manager: Manager) -> None:
    called: Called = []
    manager.register(plugin(emptcp_applied=appender(called, "x")), "x")
    manager.unload("x")
    manager.unload("never there")
    manager.hook.emptcp_applied(change="x")
    assert called == []


# Loading


def test_only_what_is_enabled_is_imported(site: Any) -> None:
    enabled, found = site.add("cap"), site.add("cup", manifest='name = "cup"\nmodule = "someones_cup.hooks"')
    state.enable("cap")
    manager = Manager.of_enabled()
    assert "cap" in manager.names
    assert Path(enabled, "imported").exists()
    assert not Path(found, "imported").exists()
    assert manager.hook.emptcp_format(stage="s") == "cap says"


@pytest.mark.parametrize(
    "code",
    [
        "syntax error here",
        "import does_not_exist",
        "raise SystemExit(1)",
        "from emptcp.api import nothing_like_it",
    ],
)
def test_a_module_that_can_not_be_imported_is_reported_and_hides_no_other(site: Any, code: str) -> None:
    site.add("cap")
    root = site.add("cup", manifest='name = "cup"\nmodule = "someones_cup.hooks"')
    Path(root, "hooks.py").write_text(code)
    state.enable("cap")
    state.enable("cup")
    reported: list[Failure] = []
    manager = Manager.of_enabled(reported.append)
    assert [(failure.plugin, failure.hook) for failure in reported] == [("cup", "import")]
    assert "cap" in manager.names


# Validation


def test_a_stage_whose_own_plugin_fails_to_check_it_is_refused(manager: Manager, stage: BoundStage) -> None:
    @hookimpl
    def emptcp_validate(stage: BoundStage) -> None:
        raise KeyError("oh")

    manager.register(plugin(emptcp_validate=emptcp_validate), "cap")
    with pytest.raises(
        EmptcpError, match="actor 'cap' can't be checked: plugin 'cap' failed in emptcp_validate"
    ):
        manager.validate(stage, policy=None)  # type: ignore[arg-type]


def test_another_plugins_failure_to_check_a_stage_blocks_nobody(manager: Manager, stage: BoundStage) -> None:
    @hookimpl
    def emptcp_validate(stage: BoundStage) -> None:
        raise KeyError("oh")

    manager.register(plugin(emptcp_validate=emptcp_validate), "other")
    manager.validate(stage, policy=None)  # type: ignore[arg-type]
    assert [failure.plugin for failure in manager.failures] == ["other"]


@pytest.mark.parametrize("module", ["__init__", "hooks", "later"])
def test_bytecode_planted_beside_an_enabled_plugins_source_never_runs(site: Any, module: str) -> None:
    """Neither at once nor when the plugin imports more of itself in a hook."""
    root = site.add()
    Path(root, "later.py").write_text("said = 'the source'")
    hook = "def emptcp_format(stage):\n    from . import later\n    return later.said\n"
    Path(root, "hooks.py").write_text(f"from emptcp.api import hookimpl\n@hookimpl\n{hook}")
    state.enable("cap")
    evil = Path(site.folder, "evil.py")
    evil.write_text(f"from pathlib import Path\nPath({str(site.folder / 'planted')!r}).touch()\nsaid = ''")
    cached = importlib.util.cache_from_source(str(Path(root, f"{module}.py")))
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(evil), cached, invalidation_mode=unchecked)
    manager = Manager.of_enabled()
    assert "cap" in manager.names
    assert manager.hook.emptcp_format(stage=None) == "the source"
    assert not Path(site.folder, "planted").exists()
