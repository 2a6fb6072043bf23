"""What other installed packages add to the tables of this one, by entry points.

A package names an object in its pyproject.toml,

    [project.entry-points."topocal.families"]
    skew_normal = "its_package.densities:SKEW_NORMAL"

and it stands in the table as if it were written there. Groups: topocal.simulators,
topocal.families, topocal.network_kinds, topocal.model_kinds, topocal.chapters.
"""

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TypeVar

from pipeline.formats.errors import UserError

Entry = TypeVar("Entry")


def with_plugins(own: Mapping[str, Entry], group: str, entry: type[Entry]) -> dict[str, Entry]:
    """The entries of a table, and those that other packages add to it, by name.

    Args:
        own: What stands in the table itself.
        group: Of the entry points, after "topocal.".
        entry: The type of an entry.

    Raises:
        UserError: A package cannot be imported, names something else, or takes a name in use.
    """
    table = dict(own)
    for point in sorted(entry_points(group=f"topocal.{group}"), key=lambda each: each.name):
        package = point.dist.name if point.dist is not None else point.value
        where = f"{package}: entry point {point.name} of topocal.{group}"
        try:
            loaded = point.load()
        except Exception as error:
            msg = f"{where}: {point.value} cannot be loaded ({type(error).__name__}: {error})"
            raise UserError(msg) from error
        if not isinstance(loaded, entry):
            msg = f"{where}: expected a {entry.__name__}, got {type(loaded).__name__}"
            raise UserError(msg)
        if point.name in table:
            msg = f"{where}: the name is taken; rename it"
            raise UserError(msg)
        table[point.name] = loaded
    return table
