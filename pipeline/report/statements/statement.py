"""A statement of the paper about a figure, and what a study finds of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pipeline.report.study_data import Scene


@dataclass(frozen=True, slots=True)
class Finding:
    """What the tables of a study say.

    Attributes:
        found: The number, with its unit or in words.
        holds: Whether the statement holds for it.
    """

    found: str
    holds: bool


# Of a scene and a set; None where the study lacks what the measurement needs.
Check = Callable[[Scene, str], Finding | None]
Subject = Literal["bnn", "repulsive_ensemble", "dnn", "sample"]


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence of the paper that can be measured.

    Attributes:
        figure: The paper's figure, such as "7a".
        words: What is measured.
        paper: What the paper says of it.
        check: The measurement.
        of: Kind of the model that is measured, the exact density beside it; or the sample itself.
    """

    figure: str
    words: str
    paper: str
    check: Check
    of: Subject = "bnn"
