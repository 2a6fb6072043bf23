"""Settings from YAML: files merged left to right, then overrides, then validated as a whole."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.formats.errors import UserError
from pipeline.formats.records import CountsFromItsFile
from pipeline.formats.yaml_text import load_yaml, read_yaml

Settings = TypeVar("Settings", bound=BaseModel)
Layer = tuple[str, dict[str, Any]]


def load_settings(
    model: type[Settings], files: Sequence[str], overrides: Sequence[str]
) -> Settings:
    """The settings that files and overrides describe.

    Args:
        model: The settings.
        files: YAML files; a later one wins.
        overrides: `key.path=value` with a YAML value; they win over all files.

    Raises:
        UserError: A file cannot be read, or keys or values are wrong; all problems together.
    """
    layers: list[Layer] = [_read_layer(path, model) for path in files]
    layers += [_parse_override(text, model) for text in overrides]
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for source, mapping in layers:
        _merge(merged, mapping, source, origins, "")
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        lines = sorted({_explain(detail, model, origins, files) for detail in error.errors()})
        raise UserError("\n".join(lines)) from None


def _read_layer(path: str, model: type[BaseModel]) -> Layer:
    try:
        mapping = read_yaml(Path(path))
    except FileNotFoundError:
        msg = f"{path}: no such study file"
        raise UserError(msg) from None
    if not isinstance(mapping, dict):
        msg = f"{path}: a study is a mapping of sections, got {type(mapping).__name__}"
        raise UserError(msg)
    return path, resolve_paths(mapping, model, Path(path).absolute().parent)


def _parse_override(text: str, model: type[BaseModel]) -> Layer:
    key, equals, value = text.partition("=")
    if not equals or not key:
        msg = f"{text}: an override is key.path=value"
        raise UserError(msg)
    try:
        nested = load_yaml(value)
    except yaml.YAMLError as error:
        msg = f"{text}: {value} is no YAML value ({' '.join(str(error).split())})"
        raise UserError(msg) from None
    for word in reversed(key.split(".")):
        nested = {word: nested}
    return "override", resolve_paths(nested, model, Path.cwd())


def resolve_paths(raw: Any, annotation: Any, folder: Path) -> Any:  # noqa: ANN401 - raw YAML
    """The raw settings with every path that is relative made absolute from `folder`."""
    annotation = _optional_type(annotation)
    if _is_model(annotation):
        if not isinstance(raw, Mapping):
            return raw
        fields = annotation.model_fields
        return {
            key: _resolve_field(value, fields[key], folder) if key in fields else value
            for key, value in raw.items()
        }
    if get_origin(annotation) is Annotated:
        return _resolve(raw, get_args(annotation)[1:], get_args(annotation)[0], folder)
    if get_origin(annotation) is dict and isinstance(raw, Mapping):
        return {k: resolve_paths(v, get_args(annotation)[1], folder) for k, v in raw.items()}
    if isinstance(raw, list | tuple) and get_args(annotation):
        return [resolve_paths(item, get_args(annotation)[0], folder) for item in raw]
    return raw


def _optional_type(annotation: Any) -> Any:  # noqa: ANN401 - a type of any kind
    """What a key has that may also be null; the type itself if it may not."""
    inner = [each for each in get_args(annotation) if each is not type(None)]
    return inner[0] if type(None) in get_args(annotation) and len(inner) == 1 else annotation


def _resolve_field(value: Any, field: Any, folder: Path) -> Any:  # noqa: ANN401 - raw YAML
    return _resolve(value, field.metadata, field.annotation, folder)


def _resolve(raw: Any, metadata: Sequence[object], annotation: Any, folder: Path) -> Any:  # noqa: ANN401 - raw YAML
    marks = [item for item in metadata if isinstance(item, CountsFromItsFile)]
    if not marks or not isinstance(raw, str):
        return resolve_paths(raw, annotation, folder)
    is_path = "://" not in raw and (not marks[0].suffixes or raw.endswith(marks[0].suffixes))
    # symbolic links keep the user's names
    mark = marks[0].mark if raw.startswith(marks[0].mark) else ""
    return mark + os.path.normpath(folder / raw.removeprefix(mark)) if is_path else raw


def _merge(
    into: dict[str, Any], layer: dict[str, Any], source: str, origins: dict[str, str], prefix: str
) -> None:
    for key, value in layer.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value, source, origins, f"{path}.")
        elif isinstance(value, dict):
            into[key] = {}
            origins[path] = source
            _merge(into[key], value, source, origins, f"{path}.")
        else:
            into[key] = value
            origins[path] = source


def _explain(
    detail: ErrorDetails, model: type[BaseModel], origins: dict[str, str], files: Sequence[str]
) -> str:
    words, holder = _trace(detail["loc"], model)
    if detail["type"] in {"union_tag_not_found", "union_tag_invalid"}:
        words.append(detail["ctx"]["discriminator"].strip("'"))
    path = ".".join(words)
    known = [".".join(words[:n]) for n in range(len(words), 0, -1)]
    source = next((origins[p] for p in known if p in origins), files[-1] if files else "study")
    rule = _rule_of(detail, words[-1] if words else "", holder)
    return f"{source}: {path}: {rule}" if words else f"{source}: {rule}"


def _rule_of(detail: ErrorDetails, word: str, holder: Any) -> str:  # noqa: ANN401 - a type
    """What is wrong with a key, and its value."""
    if detail["type"] == "extra_forbidden":
        return f"unknown key{_nearest(word, holder)}, got {detail['input']!r}"
    if detail["type"] == "missing":
        return "this key is required"
    if detail["type"] == "union_tag_not_found":
        return f"this key is required, one of {', '.join(map(repr, _by_tag(holder)))}"
    if detail["type"] == "union_tag_invalid":
        return f"expected one of {detail['ctx']['expected_tags']}, got {detail['ctx']['tag']!r}"
    rule = detail["msg"].removeprefix("Value error, ")
    return f"{rule[0].lower()}{rule[1:]}, got {_short(detail['input'])}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _nearest(word: str, holder: Any) -> str:  # noqa: ANN401 - a type of any kind
    """A hint with the known key that is closest to a word."""
    near = difflib.get_close_matches(word, holder.model_fields, n=1) if _is_model(holder) else []
    return f" (did you mean {near[0]}?)" if near else ""


def _trace(location: Sequence[int | str], model: type[BaseModel]) -> tuple[list[str], Any]:
    """The keys of a place in the settings, and the type of what holds the last of them.

    Where a model is one of several kinds, the location has that kind between the keys, and the
    type is that of the choice where it is not made.
    """
    words: list[str] = []
    holder: Any = None
    inner: Any = model
    for word in map(str, location):
        if _by_tag(inner):
            inner = _by_tag(inner).get(word)
        else:
            words.append(word)
            holder, inner = inner, _type_behind(inner, word)
    return words, inner if _by_tag(inner) else holder


def _by_tag(annotation: Any) -> dict[str, type[BaseModel]]:  # noqa: ANN401 - a type of any kind
    """The kinds of settings that a key can choose from, by their names; none if there is one."""
    if get_origin(annotation) is not Annotated:
        return {}
    union, *metadata = get_args(annotation)
    keys = [key for key in (getattr(each, "discriminator", None) for each in metadata) if key]
    kinds: dict[str, type[BaseModel]] = {}
    for key in keys:
        for each in get_args(union):  # a choice may have another one of the same key in it
            kinds |= _by_tag(each) or {each.model_fields[key].default: each}
    return kinds


def _type_behind(annotation: Any, word: str) -> Any:  # noqa: ANN401 - a type of any kind
    """The type behind a key, an index or a name; None if nothing is known of it."""
    if _is_model(annotation):
        field = annotation.model_fields.get(word)
        return _without_none(field.annotation) if field else None
    inner = get_args(annotation)
    return (inner[1] if get_origin(annotation) is dict else inner[0]) if inner else None


def _without_none(annotation: Any) -> Any:  # noqa: ANN401 - a type of any kind
    models = [each for each in get_args(annotation) if _is_model(each)]
    return models[0] if type(None) in get_args(annotation) and models else annotation


def _is_model(annotation: Any) -> bool:  # noqa: ANN401 - a type of any kind
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
