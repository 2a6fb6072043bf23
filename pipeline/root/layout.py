"""Layouts of ROOT files: where each column is, in which unit and at which level."""

from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator

from pipeline.formats.columns import Role
from pipeline.formats.errors import UserError
from pipeline.formats.records import Record
from pipeline.formats.yaml_text import read_yaml

SHIPPED = Path(__file__).resolve().parents[2] / "configs" / "layouts"
LAYOUT_SUFFIXES = (".yaml", ".yml")


class LayoutColumn(Record):
    """Where one column comes from.

    Attributes:
        expression: uproot expressions of branches (Python syntax on whole arrays; functions in
            pipeline/root/expressions.py). Of several, the first whose branches a file has is
            used. None at all: the branch of the column's own name.
        unit: Of the expression's value; it is converted to the unit that the study asks for.
        level: "cluster": one value a cluster; "event": one value an event, which all clusters of
            the event get.
        role: What the column is for. Those of role identity name a cluster for ever: the event
            level names the event, the cluster level the cluster in it.
        required: A file without it does not have this layout.
    """

    expression: tuple[str, ...] = ()
    unit: str = "1"
    level: Literal["cluster", "event"] = "cluster"
    role: Role = "reference"
    required: bool = False

    @field_validator("expression", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class Layout(Record):
    """What a kind of ROOT file holds.

    A column that the layout does not list is the branch of its own name, in the study's unit.

    Attributes:
        tree: Name of the TTree or RNTuple.
        rows: "entries": each entry is one cluster; "vectors": each entry is an event, and columns
            of level cluster are vectors over its clusters.
        columns: By the name that the dataset uses.
    """

    tree: str
    rows: Literal["entries", "vectors"] = "entries"
    columns: dict[str, LayoutColumn] = Field(default={})

    def expressions_of(self, name: str) -> tuple[str, ...]:
        """The expressions of a column, the preferred one first."""
        column = self.columns.get(name)
        return (column.expression if column is not None else ()) or (name,)

    def level_of(self, name: str) -> str:
        """Whether a column has one value a cluster or one an event."""
        column = self.columns.get(name)
        return "cluster" if column is None else column.level

    def named(self, role: Role, level: str | None = None) -> tuple[str, ...]:
        """The columns of a role (and level), sorted: their order in a file is no matter."""
        return tuple(
            sorted(
                name
                for name, column in self.columns.items()
                if column.role == role and level in {None, column.level}
            )
        )

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that every file of this layout has."""
        return tuple(name for name, column in self.columns.items() if column.required)


def read_layout(name_or_path: str) -> Layout:
    """A shipped layout by its name, or the user's own by path.

    Raises:
        UserError: There is no such layout, or the file does not describe one.
    """
    is_path = name_or_path.endswith(LAYOUT_SUFFIXES)
    path = Path(name_or_path) if is_path else SHIPPED / f"{name_or_path}.yaml"
    try:
        content = read_yaml(path)
    except FileNotFoundError:
        known = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.yaml")))
        msg = f"{path}: no such layout; shipped are {known}, your own is named by its .yaml file"
        raise UserError(msg) from None
    try:
        return Layout.model_validate(content)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
        msg = f"{path}: no layout: {'; '.join(lines)}"
        raise UserError(msg) from None


def _load(value: object) -> object:
    try:
        return read_layout(value) if isinstance(value, str) else value
    except UserError as error:
        raise ValueError(str(error)) from None


# Marks a setting of type Layout that may be a name or a path instead.
LoadedLayout = BeforeValidator(_load)


def unit_factor(given: str, wanted: str) -> float:
    """The factor from one unit to another, for example 0.001 from MeV/mm^3 to GeV/mm^3.

    Raises:
        UserError: A unit is unknown, or the two measure different things.
    """
    return 1.0 if given == wanted else _unit_factor(given, wanted)


@lru_cache(maxsize=256)
def _unit_factor(given: str, wanted: str) -> float:
    # Imported here: it takes half a second, and most files hold what is wanted.
    from fractions import Fraction  # noqa: PLC0415

    import pint  # noqa: PLC0415

    registry = _registry()
    try:
        factor = registry.Quantity(Fraction(1), given).to(wanted).magnitude
    except (pint.PintError, TypeError, ValueError, AssertionError) as error:
        msg = f"unit {given!r} cannot be converted to {wanted!r} ({type(error).__name__})"
        raise UserError(msg) from None
    return float(factor)


@lru_cache(maxsize=1)
def _registry():  # type: ignore[no-untyped-def]  # noqa: ANN202 - pint is imported late
    from fractions import Fraction  # noqa: PLC0415

    import pint  # noqa: PLC0415

    return pint.UnitRegistry(non_int_type=Fraction)  # exact, so that 1 MeV is 0.001 GeV
