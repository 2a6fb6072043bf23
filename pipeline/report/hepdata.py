"""The numbers of a panel as HEPData takes them: independent and dependent variables.

The structure is that of https://hepdata-submission.readthedocs.io, schema 1.1.1.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import yaml

from pipeline.report.math_text import split_unit, to_text

SUBMISSION = "submission.yaml"
MISSING = "-"  # what HEPData shows as an empty cell
MAX_NAME = 64

INTERVALS = {"median": ("left68", "right68")}  # narrowest intervals, shown as errors as well
DRAWN_AS_ERRORS = {"left68", "right68"}

Row = Mapping[str, Any]
Key = tuple[Any, ...]


def data_document(table: pa.Table, labels: Mapping[str, str]) -> str:
    """A table in long form as a data file.

    Columns of text name curves: each curve has a dependent variable for each column of numbers.
    Bins (columns X_low and X_high) are independent variables; a curve that lacks a bin has "-"
    there. Without bins the first labelled column is independent, without that the text itself.

    Args:
        table: What was drawn; X_error is the statistical error of column X.
        labels: By column: label with the unit.

    Raises:
        ValueError: A curve has two rows for the same bin, of which one would be lost.
    """
    rows = table.to_pylist()
    words, numbers = _kinds(table)
    independent: list[tuple[str, ...]] = [*_bins(numbers)]
    if not independent:
        axis = [name for name in labels if name in numbers][:1]
        independent, words = [(n,) for n in axis or words], words if axis else []
    taken = {name for names in independent for name in names}
    values = [n for n in numbers if n not in taken | DRAWN_AS_ERRORS and not n.endswith("_error")]
    keys = _keys(rows, independent)
    document = {
        "independent_variables": [
            {"header": _header(names[0], labels), "values": [_bin(key[at]) for key in keys]}
            for at, names in enumerate(independent)
        ],
        "dependent_variables": list(_curves(rows, words, values, independent, labels)),
    }
    return _dump(document)


def submission(panels: Sequence[tuple[str, str, str]], comment: str) -> str:
    """The file that lists the data files of a report.

    Args:
        panels: Name of the files, number in the paper or "", and caption of each panel.
        comment: What the whole is.
    """
    documents: list[dict[str, Any]] = [{"comment": comment}]
    for name, number, caption in panels:
        where = f"Figure {number} of arXiv 2412.04370, made from this study" if number else name
        documents.append({
            "name": name[:MAX_NAME],
            "location": where,
            "description": to_text(caption),
            "keywords": [],
            "data_file": f"{name}.yaml",
            "additional_resources": [
                {"location": f"{name}.{kind}", "description": f"The panel as {kind.upper()}"}
                for kind in ("pdf", "svg")
            ],
        })
    return "---\n".join(_dump(document) for document in documents)


def _kinds(table: pa.Table) -> tuple[list[str], list[str]]:
    """Names of the columns of text and of the columns of numbers that hold any."""
    words, numbers = [], []
    for column in table.schema:
        if pa.types.is_string(column.type) or pa.types.is_boolean(column.type):
            words.append(column.name)
        elif table[column.name].null_count < table.num_rows:
            numbers.append(column.name)
    return words, numbers


def _bins(numbers: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of columns that are the edges of one variable."""
    for low in numbers:
        high = low.removesuffix("low") + "high"
        if low.endswith("low") and high in numbers:
            yield low, high


def _keys(rows: Sequence[Row], independent: Sequence[tuple[str, ...]]) -> list[Key]:
    keys = dict.fromkeys(_key(row, independent) for row in rows)
    return sorted(keys) if all(len(names) > 1 for names in independent) else list(keys)


def _key(row: Row, independent: Sequence[tuple[str, ...]]) -> Key:
    return tuple(tuple(row[name] for name in names) for names in independent)


def _curves(
    rows: Sequence[Row],
    words: Sequence[str],
    values: Sequence[str],
    independent: Sequence[tuple[str, ...]],
    labels: Mapping[str, str],
) -> Iterator[dict[str, Any]]:
    keys = _keys(rows, independent)
    for curve in dict.fromkeys(tuple(row[word] for word in words) for row in rows):
        chosen = [row for row in rows if tuple(row[word] for word in words) == curve]
        found = {_key(row, independent): row for row in chosen}
        if len(found) < len(chosen):
            msg = f"two rows of {', '.join(map(str, curve)) or 'the table'} have the same bin"
            raise ValueError(msg)
        qualifiers = [{"name": w, "value": c} for w, c in zip(words, curve, strict=True) if c]
        for value in values:
            yield {
                "header": _header(value, labels),
                "qualifiers": qualifiers,
                "values": [_value(found.get(key), value) for key in keys],
            }


def _header(column: str, labels: Mapping[str, str]) -> dict[str, str]:
    name, unit = split_unit(labels.get(column, column.replace("_", " ")))
    return {"name": name} | ({"units": to_text(unit)} if unit else {})


def _bin(ends: tuple[Any, ...]) -> dict[str, Any]:
    if len(ends) == 1:
        return {"value": ends[0]}
    return {"low": ends[0], "high": ends[1]}


def _value(row: Row | None, column: str) -> dict[str, Any]:
    value = None if row is None else row[column]
    if row is None or value is None or not math.isfinite(value):
        return {"value": MISSING}
    errors: list[dict[str, Any]] = []
    error = row.get(column + "_error")
    if error and math.isfinite(error):  # HEPData refuses errors that are all zero
        errors.append({"symerror": error, "label": "statistical"})
    low, high = (row.get(side) for side in INTERVALS.get(column, ("", "")))
    if low is not None and high is not None and low < high:
        ends = {"minus": low - value, "plus": high - value}
        errors.append({"asymerror": ends, "label": "narrowest 68% interval"})
    return {"value": value} | ({"errors": errors} if errors else {})


def _dump(document: Mapping[str, Any]) -> str:
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # the same text, ten times as fast
    text: str = yaml.dump(
        dict(document),
        Dumper=dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
        default_flow_style=None,
    )
    return text
