"""Frozen records that are written as JSON and read back, with errors a user can act on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import BaseModel, ConfigDict, ValidationError

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
    """Settings of a model of any kind; each kind has a class, and a field `kind` with its name."""

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
