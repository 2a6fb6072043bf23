"""Frozen records that are written as JSON and read back, with errors a user can act on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.formats.errors import UserError
from pipeline.formats.files import write_text


@dataclass(frozen=True, slots=True)
class CountsFromItsFile:
    """Marks a path that is relative to the settings file that names it; URLs stay as they are.

    Attributes:
        suffixes: If there are any, a text that ends with none of them is a name and no path.
        mark: What may stand before the path and is no part of it.
    """

    suffixes: tuple[str, ...] = ()
    mark: str = ""


LIST_MARK = "@"  # stands before a file of any name that lists inputs

PathText = Annotated[str, CountsFromItsFile()]
InputText = Annotated[str, CountsFromItsFile(mark=LIST_MARK)]


class Record(BaseModel):
    """A frozen value whose unknown keys are errors and whose floats may not be NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def save(self, path: Path, *, flush: bool = True) -> None:
        """Write the record as JSON; the file appears complete or not at all."""
        write_text(path, json.dumps(self.model_dump(mode="json"), indent=1) + "\n", flush=flush)

    @classmethod
    def load(cls, path: Path, *, made_by: str) -> Self:
        """The record in a JSON file.

        Args:
            path: The file.
            made_by: The job that writes such a file, named in the error when it is missing.

        Raises:
            UserError: The file is missing, is no JSON or has other fields than this version's.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            msg = f"{path}: not found; it is written by `topocal {made_by}`, run that first"
            raise UserError(msg) from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "file"
            msg = (
                f"{path}: {where}: {first['msg']}; the file is damaged or from another version, "
                f"run `topocal {made_by}` again with --redo"
            )
            raise UserError(msg) from None


class ModelSettings(Record):
    """Settings of a model of any kind; each kind has a class, and a field `kind` with its name.

    Attributes:
        targets: Names of the targets that it predicts; None for a dataset's only one.
        predicts_several: Whether models of the kind can predict several.
        only_log_ratio: Whether they know targets as log10 of a ratio alone.
    """

    # not written where it is not set: models from before it existed stay up to date
    targets: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        default=None, exclude_if=lambda names: names is None
    )
    predicts_several: ClassVar[bool] = False
    only_log_ratio: ClassVar[bool] = False

    @model_validator(mode="after")
    def _targets_are_possible(self) -> Self:
        names = self.targets or ()
        if len(set(names)) < len(names):
            msg = f"targets must differ, got {list(names)}"
            raise ValueError(msg)
        if len(names) > 1 and not self.predicts_several:
            msg = f"targets: kind {self.kind} predicts one, got {list(names)}"
            raise ValueError(msg)
        return self

    if TYPE_CHECKING:  # a field here would change the order of keys in the files

        @property
        def kind(self) -> str:
            """Name of the kind, as it stands in a study and on a card."""


class OutputRecord(Record):
    """The record that makes an output exist; it is written last and lists the files.

    Attributes:
        fingerprint: Of everything that the output follows from.
    """

    fingerprint: str

    @property
    def files(self) -> Mapping[str, int]:
        """Size in bytes of each file, by its path relative to the record's folder."""
        raise NotImplementedError

    def missing_from(self, folder: Path) -> list[str]:
        """Files that are not there or have another size."""
        return [
            path
            for path, size in self.files.items()
            if not (folder / path).is_file() or (folder / path).stat().st_size != size
        ]

    def require_files(self, folder: Path, *, made_by: str) -> None:
        """Check that all files are there.

        Raises:
            UserError: One is missing or has another size.
        """
        missing = self.missing_from(folder)
        if missing:
            msg = f"{folder / missing[0]}: missing or changed; run `topocal {made_by}` again"
            raise UserError(msg)
