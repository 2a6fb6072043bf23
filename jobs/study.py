"""The study: what is simulated or read, which models are trained, how they are judged."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from jobs.settings import load_settings
from jobs.sites import DaskSettings, RaySettings
from pipeline.evaluation.rows import RESERVED_SETS, VERSUS
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.formats.records import PathText, Record
from pipeline.report.settings import ReportSettings
from pipeline.settings import CalibrateSettings, DatasetSettings, SimulateSettings
from training.settings import ModelSettings

# Networks are trained by `training`, the other kinds by plain functions of `pipeline`.
AnyModelSettings = ModelSettings


class Study(Record):
    """One study: what is simulated or read, which models are trained, how they are judged.

    `dask`, `ray` and `output` say where it runs; they enter no fingerprint.
    """

    name: str
    output: PathText
    seed: Annotated[int, Field(ge=0)] = 0
    simulate: SimulateSettings | None = None
    dataset: DatasetSettings = DatasetSettings()
    models: dict[str, AnyModelSettings] = Field(default={})
    calibrate: CalibrateSettings = CalibrateSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    report: ReportSettings = ReportSettings()
    dask: DaskSettings = DaskSettings()
    ray: RaySettings = RaySettings()

    @field_validator("models")
    @classmethod
    def _names_are_usable(cls, models: dict[str, AnyModelSettings]) -> dict[str, AnyModelSettings]:
        _refuse_unusable(models)
        return models

    @field_validator("calibrate")
    @classmethod
    def _finished_names_are_usable(cls, calibrate: CalibrateSettings) -> CalibrateSettings:
        _refuse_unusable(calibrate.models)
        return calibrate

    @property
    def folder(self) -> Path:
        """The folder that holds all outputs of the study."""
        return Path(self.output)


def _refuse_unusable(names: Iterable[str]) -> None:
    for name in names:
        is_taken = name in RESERVED_SETS or VERSUS in name
        if is_taken or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
            msg = (
                f"model name {name!r}: letters, digits, - and _ are allowed, "
                f"but not {VERSUS}; {', '.join(RESERVED_SETS)} are taken"
            )
            raise ValueError(msg)


def load_study(files: Sequence[str], overrides: Sequence[str]) -> Study:
    """The study that files and overrides describe; see jobs/settings.py.

    Raises:
        UserError: A file cannot be read, or keys or values are wrong; all problems together.
    """
    return load_settings(Study, files, overrides)
