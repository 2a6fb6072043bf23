"""What `apply` wrote; the record that makes its output exist."""

from collections.abc import Mapping

from pipeline.formats.calibrated_set import CalibratedColumn
from pipeline.formats.records import OutputRecord, Record


class AppliedFile(Record):
    """One input and what became of it.

    Attributes:
        input: The input, as it was named.
        entries: Of the input.
        rows: Clusters; each is in the output.
        outputs: Files of the output and their sizes in bytes.
        reasons: Rows by reason; "calibrated" those that are.
        outside: Of these, rows with a feature outside its training range.
    """

    input: str
    entries: int
    rows: int
    outputs: dict[str, int]
    reasons: dict[str, int]
    outside: int = 0


class AppliedManifest(OutputRecord):
    """All that a reader may rely on; it is written last.

    Attributes:
        fingerprint: Of the model and the settings.
        model: Folder of the model.
        kind: Of the model.
        columns: Of the output.
        reasons: The codes of the column `reason`.
        bits: The features in the order of the bits of `outside`.
        inputs: In order.
        versions: Software.
        citation: How to cite the model.
    """

    model: str
    kind: str
    columns: tuple[CalibratedColumn, ...]
    reasons: dict[str, int]
    bits: tuple[str, ...]
    inputs: tuple[AppliedFile, ...]
    versions: dict[str, str]
    citation: str

    @property
    def files(self) -> Mapping[str, int]:
        """Size in bytes of each file, by its path."""
        return {path: size for item in self.inputs for path, size in item.outputs.items()}
