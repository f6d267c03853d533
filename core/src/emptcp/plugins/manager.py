# SPDX-License-Identifier: Apache-2.0
"""Import the enabled plugins' Python sides and call their hooks, each kept from harming the others.

What a plugin raises, at import or in a hook, becomes a :class:`Failure` with the plugin's name; the others
are called all the same. So does what takes longer than :func:`emptcp.plugins.deadline.limit`. The one error
that passes is a refusal (:class:`EmptcpError`) by ``emptcp_validate``.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pluggy

from emptcp import hookspecs
from emptcp.errors import EmptcpError
from emptcp.plugins import deadline, digest, sources
from emptcp.plugins.discovery import Plugin

if TYPE_CHECKING:
    from emptcp.plugins.catalog import BoundStage
    from emptcp.policy.model import Policy

_log = logging.getLogger(__name__)

MAY_REFUSE = ("emptcp_validate",)
"""Hooks whose :class:`EmptcpError` is meant for the operator."""


@dataclass(frozen=True)
class Failure:
    """What a plugin raised, and in which hook (``"import"`` when its module can't be imported)."""

    plugin: str
    hook: str
    error: BaseException

    def __str__(self) -> str:
        lines = str(self.error).splitlines()
        said = f": {lines[0]}" if lines else ""
        return f"plugin '{self.plugin}' failed in {self.hook} ({type(self.error).__name__}{said})"


_FAILURES = (Exception, SystemExit, deadline.Overdue)
"""What a stranger's code may raise without harm to others."""

Report = Callable[[Failure], None]


def warn(failure: Failure) -> None:
    """Report a failure as one line of warning; the traceback is for those who log at level debug."""
    _log.warning("%s", failure)
    _log.debug("traceback", exc_info=failure.error)


class _Implementations(SimpleNamespace):
    """A plugin's hook implementations and nothing else, as pluggy looks at all that there is."""

    def __dir__(self) -> Iterable[str]:
        return vars(self)


class Manager:
    """The hooks of the plugins that it was given; ``hook`` calls them as pluggy does.

    Nothing is imported before :meth:`load`. Every failure goes to ``report`` and into ``failures``.
    """

    def __init__(self, report: Report = warn) -> None:
        self._report = report
        self._pluggy = pluggy.PluginManager(hookspecs.PROJECT)
        self._pluggy.add_hookspecs(hookspecs)
        self._limit = deadline.limit()
        self.failures: list[Failure] = []

    @classmethod
    def of_enabled(cls, report: Report = warn) -> Manager:
        """Return a manager with the Python sides of all enabled plugins loaded."""
        from emptcp.plugins import state

        manager = cls(report)
        manager.load(state.judged())
        return manager

    @property
    def hook(self) -> pluggy.HookRelay:
        """The hooks, to be called with keyword arguments: ``manager.hook.emptcp_applied(change=..)``."""
        return self._pluggy.hook

    @property
    def names(self) -> list[str]:
        """The plugins whose Python side is there, in the order in which they were loaded."""
        return [name for name, _plugin in self._pluggy.list_name_plugin()]

    def load(self, plugins: Iterable[Plugin]) -> None:
        """Import and register the Python sides of the plugins that may be used; report those that fail."""
        for plugin in plugins:
            module = plugin.manifest.module if plugin.manifest is not None else ""
            if not plugin.usable or not module:
                continue
            try:
                sources.always_compile(digest.top_level(plugin))
                with deadline.within(self._limit):
                    imported = importlib.import_module(module)
                self.register(imported, plugin.name)
            except _FAILURES as error:  # a stranger's module may do anything when imported
                self._fail(Failure(plugin.name, "import", error))

    def register(self, module: object, name: str) -> None:
        """Register what holds hook implementations under a plugin's name.

        Raises :class:`pluggy.PluginValidationError` when an implementation fits no hook; then it is as if it
        had never been registered.
        """
        guarded = _Implementations(**dict(self._implementations(module, name)))
        try:
            self._pluggy.register(guarded, name)
            self._pluggy.check_pending()
        except pluggy.PluginValidationError:
            self._pluggy.unregister(name=name)
            raise

    def unload(self, name: str) -> None:
        """Forget a plugin's hooks; its module stays imported."""
        if self._pluggy.has_plugin(name):
            self._pluggy.unregister(name=name)

    def validate(self, stage: BoundStage, policy: Policy) -> None:
        """Ask all plugins about a stage.

        Raises :class:`EmptcpError` when one refuses it, or when the stage's own plugin can't tell.
        """
        before = len(self.failures)
        self.hook.emptcp_validate(stage=stage, policy=policy)
        for failure in self.failures[before:]:
            if failure.plugin == stage.type.plugin:
                sentence = f"{stage.type.kind} '{stage.type.name}' can't be checked: {failure}"
                fix = f"Tell its authors, or run: emptcp plugins disable {failure.plugin}"
                raise EmptcpError(sentence, fix=fix, where=str(stage.spec.where))

    def _fail(self, failure: Failure) -> None:
        self.failures.append(failure)
        self._report(failure)

    def _implementations(self, module: object, plugin: str) -> Iterator[tuple[str, Callable[..., Any]]]:
        """Yield the module's hook implementations, each in a guard that looks just like it to pluggy."""
        held = getattr(module, "__dict__", {})
        for hook in dir(module):
            if hook in held and not inspect.isroutine(held[hook]):
                continue  # pluggy would find out, too, and take longer
            options = self._pluggy.parse_hookimpl_opts(module, hook)
            if options is None:
                continue
            function = getattr(module, hook)
            wraps = options["wrapper"] or options["hookwrapper"]
            if wraps and not inspect.isgeneratorfunction(function):
                raise pluggy.PluginValidationError(module, f"the wrapper {hook} does not yield")
            guard = self._guarded_wrapper if wraps else self._guarded
            yield hook, guard(function, plugin, options["specname"] or hook)

    def _guarded(self, function: Callable[..., Any], plugin: str, hook: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def guarded(*arguments: Any) -> Any:
            try:
                with deadline.within(self._limit):
                    return function(*arguments)
            except EmptcpError as error:
                if hook in MAY_REFUSE:
                    raise
                self._fail(Failure(plugin, hook, error))
            except _FAILURES as error:
                self._fail(Failure(plugin, hook, error))
            return None

        return guarded

    def _guarded_wrapper(
        self, function: Callable[..., Generator[None, Any, Any]], plugin: str, hook: str
    ) -> Callable[..., Generator[None, Any, Any]]:
        """Guard a ``wrapper=True`` implementation: where it fails, the result is what it was handed."""

        @functools.wraps(function)
        def guarded(*arguments: Any) -> Generator[None, Any, Any]:
            try:
                with deadline.within(self._limit):
                    inner = function(*arguments)
                    next(inner)
            except _FAILURES as error:
                self._fail(Failure(plugin, hook, error))
                return (yield)
            try:
                result = yield
            except Exception as refusal:
                return self._thrown(inner, refusal, plugin, hook)
            return self._sent(inner, result, plugin, hook)

        return guarded

    def _sent(self, inner: Generator[None, Any, Any], result: Any, plugin: str, hook: str) -> Any:
        try:
            with deadline.within(self._limit):
                inner.send(result)
        except StopIteration as end:
            return end.value
        except EmptcpError as error:
            if hook in MAY_REFUSE:
                raise
            self._fail(Failure(plugin, hook, error))
        except _FAILURES as error:
            self._fail(Failure(plugin, hook, error))
        else:
            inner.close()
            self._fail(Failure(plugin, hook, RuntimeError("the wrapper yields twice")))
        return result

    def _thrown(self, inner: Generator[None, Any, Any], refusal: Exception, plugin: str, hook: str) -> Any:
        """Hand a refusal to a wrapper: it may pass it on, put another in its place, or take it back."""
        try:
            with deadline.within(self._limit):
                inner.throw(refusal)
        except StopIteration as end:
            return end.value
        except EmptcpError:
            raise
        except _FAILURES as error:
            self._fail(Failure(plugin, hook, error))
        else:
            inner.close()
            self._fail(Failure(plugin, hook, RuntimeError("the wrapper yields twice")))
        raise refusal
