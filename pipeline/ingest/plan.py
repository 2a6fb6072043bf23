"""What is written where: blocks of clusters, parts of blocks, and their columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.formats.columns import IDENTITY, Column
from pipeline.formats.errors import UserError
from pipeline.formats.manifest import InputFile
from pipeline.formats.versions import fingerprint
from pipeline.ingest.resume import Earlier
from pipeline.root.files import Access
from pipeline.root.inspect import RootSource, Wanted
from pipeline.settings import STATISTICS_BLOCK, DatasetSettings

VERSION = 2  # raised when the same inputs and settings give another dataset


@dataclass(frozen=True, slots=True)
class Block:
    """Clusters [start, stop) of one file: the unit in which statistics are summed."""

    file: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class PartPlan:
    """All that a worker needs to write the parts with one index.

    Attributes:
        index: Of the parts.
        blocks: Their clusters, in order; `file` counts in sources.
        sources: The files of the blocks.
        columns: Of the parts.
        settings: The study's section dataset.
        folder: Where the parts are written.
        access: How files are read.
        earlier: Blocks that an earlier run has read already, by their key.
    """

    index: int
    blocks: tuple[Block, ...]
    sources: tuple[RootSource, ...]
    columns: tuple[Column, ...]
    settings: DatasetSettings
    folder: Path
    access: Access
    earlier: dict[str, Earlier]

    @property
    def rows(self) -> int:
        """Number of clusters that are read for the part, before cuts."""
        return sum(block.stop - block.start for block in self.blocks)

    def key_of(self, block: Block) -> str:
        """What a block is, wherever its file lies."""
        return block_key(self.sources[block.file].file, block)


def block_key(file: InputFile, block: Block) -> str:
    """What a block is, wherever its file lies."""
    return f"{file.fingerprint}:{block.start}:{block.stop}"


def plan_blocks(files: Sequence[InputFile], rows_per_part: int) -> list[tuple[Block, ...]]:
    """Blocks aligned to each file, grouped in file order until a part has its rows.

    The grouping follows from the files and `rows_per_part` alone, so that neither the number of
    workers nor the size of a read changes a part.
    """
    groups: list[tuple[Block, ...]] = []
    group: list[Block] = []
    rows = 0
    for number, file in enumerate(files):
        for start in range(0, file.rows, STATISTICS_BLOCK):
            block = Block(number, start, min(start + STATISTICS_BLOCK, file.rows))
            group.append(block)
            rows += block.stop - block.start
            if rows >= rows_per_part:
                groups.append(tuple(group))
                group, rows = [], 0
    return [*groups, tuple(group)] if group else groups


def plan_parts(
    settings: DatasetSettings,
    sources: Sequence[RootSource],
    *,
    folder: Path,
    access: Access,
    earlier: dict[str, Earlier],
) -> list[PartPlan]:
    """What the workers need to write each part.

    Args:
        settings: The study's section dataset.
        sources: The inputs, in order.
        folder: Where the parts are written.
        access: How files are read.
        earlier: Blocks that an earlier run has read already.

    Raises:
        UserError: The inputs hold no clusters.
    """
    groups = plan_blocks([source.file for source in sources], settings.rows_per_part)
    if not groups:
        msg = (
            f"{sources[0].file.path}: tree {settings.layout.tree} has no clusters, "
            "nor has any other input"
        )
        raise UserError(msg)
    columns = kept_columns(settings, sources)
    plans = []
    for index, group in enumerate(groups):
        used = sorted({block.file for block in group})
        blocks = tuple(Block(used.index(b.file), b.start, b.stop) for b in group)
        keys = [block_key(sources[b.file].file, b) for b in group]
        plans.append(
            PartPlan(
                index=index,
                blocks=blocks,
                sources=tuple(sources[number] for number in used),
                columns=columns,
                settings=settings,
                folder=folder,
                access=access,
                earlier={key: earlier[key] for key in keys if key in earlier},
            )
        )
    return plans


def wanted_columns(settings: DatasetSettings) -> Wanted:
    """The columns that a dataset takes from its inputs."""
    layout = settings.layout
    needed: dict[str, str] = dict.fromkeys((f.name for f in settings.features), "features")
    units = {f.name: f.unit for f in settings.features}
    units |= {column.name: column.unit for column in settings.extras}
    for target in settings.every_target:
        needed.setdefault(target.numerator, "the target's numerator")
        needed.setdefault(target.denominator, "truth")
        units[target.numerator] = units[target.denominator] = target.calibrated_unit
    for name, purpose in [
        *((cut.column, "columns of dataset.cuts") for cut in settings.cuts),
        *((name, "columns of dataset.floors") for name in settings.floors),
        *([(settings.weight, "dataset.weight")] if settings.weight else []),
    ]:
        needed.setdefault(name, purpose)
    optional = [*(column.name for column in settings.extras), *layout.named("identity")]
    lists = {feature.name for feature in settings.features if feature.is_ragged}
    lists |= {column.name for column in settings.extras if column.shape == "ragged"}
    return Wanted(needed, tuple(dict.fromkeys(optional)), units, frozenset(lists))


def kept_columns(settings: DatasetSettings, sources: Sequence[RootSource]) -> tuple[Column, ...]:
    """The columns of the parts, `cluster_id` first; extras only where every input has them."""
    columns = [Column(name=IDENTITY, role="identity")]
    columns += [
        Column(name=f.name, unit=f.unit, role="feature", shape=f.shape) for f in settings.features
    ]
    named = {column.name for column in columns}
    for target in settings.every_target:
        unit = target.calibrated_unit
        made = (
            Column(name=target.numerator, unit=unit, role="reference"),
            Column(name=target.denominator, unit=unit, role="truth"),
            Column(name=target.name, unit=target.unit, role="target"),
        )
        columns += [column for column in made if column.name not in named]
        named |= {column.name for column in made}
    if settings.weight is not None:
        columns.append(Column(name=settings.weight, role="weight"))
    named = {column.name for column in columns}
    common = set.intersection(*[set(source.expressions) for source in sources])
    columns += [c for c in settings.extras if c.name in common and c.name not in named]
    return tuple(columns)


def finite_columns(settings: DatasetSettings) -> list[str]:
    """The columns that must be finite in every row."""
    return list(wanted_columns(settings).needed)


ROWS = ""  # the table of what has one number a row


def statistics_columns(settings: DatasetSettings) -> dict[str, tuple[list[str], list[str]]]:
    """By table: columns of which statistics are kept, and those of which log10 is as well.

    Statistics of a list are those of all its elements.
    """
    tables: dict[str, tuple[list[str], list[str]]] = {ROWS: ([], [])}
    for feature in settings.features:
        names, logs = tables.setdefault(feature.table_name, ([], []))
        names.append(feature.name)
        logs += [feature.name] if feature.transform == "log10_standard" else []
    names, logs = tables[ROWS]
    for target in settings.every_target:
        names += [target.numerator, target.denominator, target.name]
        logs += [target.name] if target.transform == "log10" else []
    tables[ROWS] = list(dict.fromkeys(names)), logs
    return tables


def settings_fingerprint(settings: DatasetSettings) -> str:
    """The fingerprint of what a dataset follows from beside its inputs.

    The place of the inputs is not their identity, what happens on errors changes no row, and
    tagged rows are dropped later.
    """
    content = settings.model_dump(mode="json", exclude={"inputs", "on_error", "drop_tagged"})
    return fingerprint(version=VERSION, settings=content)
