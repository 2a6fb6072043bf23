"""The study: what is simulated or read, which models are trained, how they are judged."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self, Union

from pydantic import BeforeValidator, Field, field_validator, model_validator

from jobs.kinds import KINDS
from jobs.settings import load_settings
from jobs.sites import DaskSettings, RaySettings
from pipeline.evaluation.rows import RESERVED_SETS, VERSUS
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.formats.records import ModelSettings, PathText, Record
from pipeline.report.settings import ReportSettings
from pipeline.settings import CalibrateSettings, DatasetSettings
from pipeline.simulators.registry import SIMULATORS
from pipeline.simulators.settings import KNOWN_DENSITY, SampleSettings
from pipeline.tagging.settings import TagSettings, UnderPredicted
from pipeline.training_size.settings import ScalingSettings
from training.settings import TaggerSettings


def _with_simulator(section: object) -> object:
    """A section that names no simulator is that of the usual one."""
    return {"simulator": KNOWN_DENSITY, **section} if isinstance(section, dict) else section


# The sections that have a form for each entry of a table, found by its name.
if TYPE_CHECKING:
    AnyModelSettings = ModelSettings
    AnySampleSettings = SampleSettings
else:
    AnyModelSettings = Annotated[
        Union[tuple(kind.settings for kind in KINDS.values() if kind.section == "models")],  # noqa: UP007 - of a table
        Field(discriminator="kind"),
    ]
    _SAMPLES = [simulator.settings for simulator in SIMULATORS.values()]
    AnySampleSettings = (
        _SAMPLES[0]
        if len(_SAMPLES) == 1
        else Annotated[
            Union[tuple(_SAMPLES)],  # noqa: UP007 - of a table
            Field(discriminator="simulator"),
            BeforeValidator(_with_simulator),
        ]
    )


class TagSection(TagSettings):
    """The tagger for training-resistant clusters, and its network.

    Attributes:
        model: The network that is trained.
    """

    model: TaggerSettings = TaggerSettings()


class Study(Record):
    """One study: what is simulated or read, which models are trained, how they are judged.

    `dask`, `ray` and `output` say where it runs; they enter no fingerprint.
    """

    name: str
    output: PathText
    seed: Annotated[int, Field(ge=0)] = 0
    simulate: AnySampleSettings | None = None
    dataset: DatasetSettings = DatasetSettings()
    tag: TagSection | None = None
    models: dict[str, AnyModelSettings] = Field(default={})
    calibrate: CalibrateSettings = CalibrateSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    report: ReportSettings = ReportSettings()
    scaling: ScalingSettings | None = None
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
        _refuse_unusable([*calibrate.models, *calibrate.scales])
        return calibrate

    @model_validator(mode="after")
    def _tagger_is_complete(self) -> Self:
        if self.dataset.drop_tagged and self.tag is None:
            msg = "dataset.drop_tagged: the study has no section tag that says what is tagged"
            raise ValueError(msg)
        if self.first_pass is not None and self.first_pass not in self.models:
            msg = (
                f"tag.label.regression: the study has no model {self.first_pass}, it has "
                f"{', '.join(self.models) or 'none'}"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _scales_are_no_models(self) -> Self:
        both = sorted({*self.models, *self.calibrate.models} & self.calibrate.scales.keys())
        if both:
            msg = (
                f"calibrate.scales: {', '.join(both)} is the name of a model too; rename the "
                "model, or name the scales yourself (calibrate.scales: {} for none)"
            )
            raise ValueError(msg)
        return self

    @property
    def first_pass(self) -> str | None:
        """The model whose failures are labelled, which is trained on all clusters."""
        label = None if self.tag is None else self.tag.label
        return label.regression if isinstance(label, UnderPredicted) else None

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
