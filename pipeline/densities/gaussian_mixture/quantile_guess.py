"""Guesses of quantiles from the density at the points of a grid; compiled."""

from pipeline.numerics.compiled import kernel
from pipeline.numerics.special import Vector, Vector32

# Densities at five points in a row, and the mass between the two in the middle: see _cell.
Cell = tuple[float, float, float, float]


@kernel
def guess_quantiles(
    grid: tuple[float, float, float, float],
    values: Vector32,
    probabilities: Vector,
    found: Vector,
    rates: Vector,
) -> None:
    """Adds up the density from the first point on.

    Args:
        grid: first point, step, the distribution function at the first point, and what makes
            probabilities of a step of the values.
        values: densities at the points, but for a factor.
        probabilities: ascending.
        found: gets the guesses; the first point for quantiles outside.
        rates: gets the densities there; zero for quantiles outside.
    """
    left, step, low, scale = grid
    last = len(values) - 1
    found[:], rates[:] = left, 0.0
    j = 0
    while j < len(found) and probabilities[j] <= low:
        j += 1
    for i in range(last):
        high = low + scale * _whole(_cell(values, i))
        while j < len(found) and probabilities[j] <= high:
            found[j], rates[j] = i, (probabilities[j] - low) / scale
            j += 1
        if j == len(found):
            break
        low = high
    for j in range(len(found)):
        if rates[j] > 0.0:
            cell = int(found[j])
            u, rate = _invert(_cell(values, cell), rates[j])
            found[j] = left + step * (cell + u)
            rates[j] = rate * scale / step


@kernel
def _cell(values: Vector32, i: int) -> Cell:
    """The cubic of the density between two points: values and slopes by central differences."""
    f0, f1 = float(values[i]), float(values[i + 1])
    before = values[i - 1] if i > 0 else 2.0 * f0 - f1
    after = values[i + 2] if i + 2 < len(values) else 2.0 * f1 - f0
    return f0, 0.5 * (f1 - before), f1, 0.5 * (after - f0)


@kernel
def _density(cell: Cell, u: float) -> float:
    f0, d0, f1, d1 = cell
    v = 1.0 - u
    return (
        (1.0 + 2.0 * u) * v * v * f0
        + u * v * v * d0
        + u * u * (3.0 - 2.0 * u) * f1
        - u * u * v * d1
    )


@kernel
def _integral(cell: Cell, u: float) -> float:
    """Of the density, from the first point on."""
    f0, d0, f1, d1 = cell
    square = u * u
    rise = square * u * (1.0 - 0.5 * u)
    return float(
        (u - rise) * f0
        + square * (0.5 - u * (2.0 / 3.0 - 0.25 * u)) * d0
        + rise * f1
        - square * u * (1.0 / 3.0 - 0.25 * u) * d1
    )


@kernel
def _whole(cell: Cell) -> float:
    """The integral over all of the cell."""
    f0, d0, f1, d1 = cell
    return 0.5 * (f0 + f1) + (d0 - d1) / 12.0


@kernel
def _invert(cell: Cell, wanted: float) -> tuple[float, float]:
    """Where in the cell the integral is as wanted, by Newton steps, and the density there."""
    u = wanted / _whole(cell)
    rate = 0.0
    for _ in range(2):
        rate = _density(cell, u)
        u = min(max(u + (wanted - _integral(cell, u)) / rate, 0.0), 1.0)
    return u, rate
