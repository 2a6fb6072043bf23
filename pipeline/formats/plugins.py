"""Constant tables, and what other installed packages add to them by entry points.

A package names an object in its pyproject.toml,

    [project.entry-points."topocal.families"]
    skew_normal = "its_package.densities:SKEW_NORMAL"

and it stands in the table as if it were written there. Groups: topocal.simulators,
topocal.families, topocal.network_kinds, topocal.model_kinds, topocal.chapters.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from pipeline.formats.errors import UserError

Entry = TypeVar("Entry")


class Table(Mapping[str, Entry]):
    """The entries of a constant table by name, then those of other packages.

    Theirs are loaded when the table is first read and not when its module is imported, since they
    import such modules themselves.
    """

    def __init__(
        self, own: Callable[[], Mapping[str, Entry]], group: str, entry: type[Entry]
    ) -> None:
        """Remember what the table is made from.

        Args:
            own: Gives what stands in the table itself.
            group: Of the entry points, after "topocal.".
            entry: The type of an entry.
        """
        self._own, self._group, self._type = own, f"topocal.{group}", entry
        self._entries: dict[str, Entry] | None = None

    def __getitem__(self, name: str) -> Entry:
        return self._complete()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._complete())

    def __len__(self) -> int:
        return len(self._complete())

    def _complete(self) -> dict[str, Entry]:
        """All entries.

        Raises:
            UserError: A package cannot be imported, names something else, or takes a name in use.
        """
        if self._entries is None:
            self._entries = dict(self._own())  # which what is loaded may read
            try:
                for point in sorted(entry_points(group=self._group), key=lambda each: each.name):
                    self._entries[point.name] = self._load(point)
            except UserError:
                self._entries = None
                raise
        return self._entries

    def _load(self, point: EntryPoint) -> Entry:
        package = point.dist.name if point.dist is not None else point.value
        where = f"{package}: entry point {point.name} of {self._group}"
        try:
            loaded = point.load()
        except Exception as error:
            msg = f"{where}: {point.value} cannot be loaded ({type(error).__name__}: {error})"
            raise UserError(msg) from error
        if not isinstance(loaded, self._type):
            msg = f"{where}: expected a {self._type.__name__}, got {type(loaded).__name__}"
            raise UserError(msg)
        if point.name in (self._entries or {}):
            msg = f"{where}: the name is taken; rename it"
            raise UserError(msg)
        return loaded
