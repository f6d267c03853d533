# SPDX-License-Identifier: Apache-2.0
"""The arguments of a stage: what is written becomes values by parameter, and the bytes of the C struct."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from emptcp.errors import EmptcpError, did_you_mean, quoted
from emptcp.plugins import layout
from emptcp.plugins.manifest import ControllerDeclaration, Parameter, StageDeclaration, check_range
from emptcp.policy import model, values

if TYPE_CHECKING:
    from emptcp.plugins.catalog import StageType
    from emptcp.plugins.controllers import ControllerType
    from emptcp.plugins.keys import KeyType


def read_all(stage: StageType | ControllerType, spec: model.StageSpec) -> Iterator[tuple[str, Any]]:
    """Yield every argument's parameter and value."""
    parameters = {parameter.name: parameter for parameter in stage.declaration.parameters}
    taken: set[str] = set()
    for parameter, argument in _positional(stage, spec):
        taken.add(parameter.name)
        yield parameter.name, _value(stage, parameter, argument)
    for keyword in spec.keywords:
        if keyword.name not in parameters:
            raise _no_parameter(stage, keyword, parameters)
        if keyword.name in taken:
            sentence = f"{title(stage)}: parameter '{keyword.name}' is given twice"
            raise EmptcpError(sentence, fix="Remove one.", where=str(keyword.where))
        yield keyword.name, _value(stage, parameters[keyword.name], keyword.value)


def _positional(
    stage: StageType | ControllerType, spec: model.StageSpec
) -> Iterator[tuple[Parameter, model.Argument]]:
    """Pair the values without a name with the parameters; one with ``many`` takes all that are left."""
    waiting = list(spec.positional)
    for parameter in stage.declaration.parameters:
        if not waiting:
            return
        if parameter.many and all(isinstance(argument, model.Scalar) for argument in waiting):
            items = tuple(argument for argument in waiting if isinstance(argument, model.Scalar))
            yield parameter, model.Listing(items, waiting[0].where)
            return
        yield parameter, waiting.pop(0)
    if waiting:
        taken = len(spec.positional) - len(waiting)
        sentence = f"{title(stage)} takes {taken} values, not {len(spec.positional)}"
        raise EmptcpError(sentence, fix=f"Write {usage(stage.declaration)}.", where=str(waiting[0].where))


def _value(stage: StageType | ControllerType, parameter: Parameter, argument: model.Argument) -> Any:
    try:
        if isinstance(argument, model.FromMap) and parameter.type.in_maps:
            _check_from_map(stage, parameter)
            return argument
        value = parameter.type.read(argument)
        check_range(parameter, value)
        if parameter.required and value == ():
            raise EmptcpError("it is empty", fix=f"Write {usage(stage.declaration)}.")
        return value
    except EmptcpError as error:
        sentence = f"parameter '{parameter.name}' of {title(stage)}: {error.sentence}"
        raise EmptcpError(sentence, fix=error.fix, where=str(argument.where)) from None


def _check_from_map(stage: StageType | ControllerType, parameter: Parameter) -> None:
    """Refuse a value per packet where the value decides how the program is made."""
    companions = getattr(stage.declaration, "companions", ())
    decides = [one for one in companions if parameter.name in one.only]
    if parameter.plain_tcp or decides:
        raise EmptcpError(
            "it decides what runs besides the stage, and can't differ between packets",
            fix=f"Write one value, as in {parameter.type.example}.",
        )


def _no_parameter(
    stage: StageType | ControllerType, keyword: model.Keyword, parameters: Mapping[str, Parameter]
) -> EmptcpError:
    fix = did_you_mean(keyword.name, parameters) or f"Write {usage(stage.declaration)}."
    sentence = f"{title(stage)} has no parameter {quoted(keyword.name)}"
    return EmptcpError(sentence, fix=fix, where=str(keyword.where))


def completed(
    stage: StageType | ControllerType, spec: model.StageSpec, given: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Yield the values in the manifest's order, with defaults; refuse when a required one is missing."""
    for parameter in stage.declaration.parameters:
        if parameter.name in given:
            yield parameter.name, given[parameter.name]
        elif parameter.default is not None:
            yield parameter.name, parameter.default
        elif parameter.required:
            sentence = f"{title(stage)} lacks its parameter '{parameter.name}'"
            fix = f"Write {usage(stage.declaration)}."
            raise EmptcpError(sentence, fix=fix, where=str(spec.where))


def pack(stage: StageType, spec: model.StageSpec, given: Mapping[str, Any], devices: values.Devices) -> bytes:
    fragment = stage.fragment
    packed = bytearray(fragment.parameter_size)
    for parameter in stage.declaration.parameters:
        if parameter.name not in given:
            continue
        try:
            _put(packed, fragment, parameter, given[parameter.name], devices)
        except EmptcpError as error:
            sentence = f"parameter '{parameter.name}' of {title(stage)}: {error.sentence}"
            raise EmptcpError(sentence, fix=error.fix, where=str(spec.where)) from None
    return bytes(packed)


def _put(
    packed: bytearray,
    fragment: layout.FragmentLayout,
    parameter: Parameter,
    value: Any,
    devices: values.Devices,
) -> None:
    member = fragment.fields.get(parameter.name)
    misfit = "no member of this name" if member is None else parameter.type.misfit(member)
    if member is None or misfit:
        raise EmptcpError(f"it does not fit the plugin's struct ({misfit})", fix="Install the plugin again.")
    if isinstance(value, model.FromMap):
        return  # core puts in what the map says, packet by packet
    packed[member.offset : member.offset + member.bytes] = parameter.type.pack(value, member, devices)
    length = fragment.fields.get(f"{parameter.name}_len")
    if length is not None and isinstance(parameter.type, values.List):
        packed[length.offset : length.offset + length.bytes] = values.Int().pack(len(value), length, devices)


def usage(declaration: StageDeclaration | ControllerDeclaration) -> str:
    """Return how a stage is written: ``set_backup([on=true], [steers=us])``, ``record(packets, ..)``."""
    if isinstance(declaration, ControllerDeclaration):
        return f"with = {{ {', '.join(map(_placeholder, declaration.parameters))} }}"
    return f"{declaration.name}({', '.join(map(_placeholder, declaration.parameters))})"


def _placeholder(parameter: Parameter) -> str:
    example = parameter.type.example
    text = f"{example}, .." if parameter.many else f"{parameter.name}={example}"
    return text if parameter.required else f"[{text}]"


def written(parameter: Parameter, value: Any) -> model.Argument:
    if isinstance(value, model.FromMap):
        return value
    if isinstance(value, tuple) and not isinstance(parameter.type, values.List):
        return model.Listing(tuple(model.Scalar(item) for item in value))
    if isinstance(value, tuple) and isinstance(parameter.type, values.List):
        return model.Listing(tuple(model.Scalar(parameter.type.of.format(item)) for item in value))
    return model.Scalar(parameter.type.format(value))


def title(stage: StageType | KeyType | ControllerType) -> str:
    return f"{stage.kind} '{stage.name}'"
