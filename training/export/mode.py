"""The most probable value of an averaged Gaussian mixture in l, by fixed iterations.

The mode of the density of R = 10^l maximises p(l) 10^(-l). Up to a factor this is again a mixture,
the tilted one: centres m - L s^2, log weights log a - L m + (L s)^2 / 2, the same s, L = ln 10. A
target that is l itself has L = 0. The search looks at a grid over the hull of its centres and at
its highest peaks, keeps the highest local maxima and refines each by Newton steps that a bracket
guards. No loop depends on the data, so the same code is the ONNX graph. Written with operations
that ONNX has.

Fixed operations cannot find the highest of any number of peaks, so the search says how far it can
have missed. Between two points of the grid, w apart, two bounds hold. No component is higher than
at the point that is nearer to its centre, but for what its peak exceeds all points by, if the peak
lies there. And with s the smallest width of the components that count at either point,
(log g)'' >= -1 / s^2 for their sum g: from a maximum it falls no faster than a Gaussian of that
width, so that one between the points, of which the nearer is at most w / 2 away, is no higher than
their larger value times exp(w^2 / (8 s^2)). The first is the lower one where components end, the
second at their peaks.

Shape letters: N rows, M components of all networks, Q points, C candidates.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

LN10 = math.log(10.0)
GRID_POINTS = 48
PEAKS = 12  # highest single components, at and beside which the grid has points as well
STEPS = (-1.5, -0.5, 0.0, 0.5, 1.5)  # where, in widths
LOOKED_AT = 8  # highest points of the grid whose density is computed without rounding
CANDIDATES = 3
ITERATIONS = 12
HIGHER = 2e-6  # relative; by less float32 does not tell densities apart
NEVER = -1e30  # the log height of what is no component
NEGLIGIBLE = 1e-6  # lower components, relative to the highest, do not count
LARGEST = 60.0  # of an exponent
ROUNDING = (
    8.0 * 2.0**-24
)  # of an exponent whose three terms cancel, relative to the largest of them


class Tilted(NamedTuple):
    """The tilted mixture, each [N, M]; log_height is relative to the highest value in range.

    `inside` are the centres moved into the range, `reached` the log heights there, half_precision
    1 / (2 s^2), origin [N, 1] the place of the highest component in range.
    """

    centre: Tensor
    half_precision: Tensor
    log_height: Tensor
    inside: Tensor
    reached: Tensor
    origin: Tensor


class Mode(NamedTuple):
    """The mode of N rows.

    `l_N` is its l; `gap_N` bounds how much higher than there the natural log of the
    density can be anywhere in the range.
    """

    l_N: Tensor
    gap_N: Tensor


def mode_within(
    mean: Tensor,
    log_variance: Tensor,
    log_weight: Tensor,
    search_range: Tensor,
    tilt: float = LN10,
) -> Mode:
    """The most probable value of the average of all networks.

    Args:
        mean: Component centres [N, M] in l.
        log_variance: Natural log of their variances.
        log_weight: Natural log of their weights.
        search_range: [2], bounds of l, within which the mode is searched.
        tilt: L; ln 10 for the mode of R, 0 for that of l.
    """
    tilted = _tilt((mean, log_variance, log_weight), search_range, tilt)
    points = _points(tilted, torch.exp(0.5 * log_variance), search_range)
    term = torch.exp(_rough_exponent(tilted, points))
    value = term.sum(dim=2)
    left = torch.cat([points[:, :1], points[:, :-1]], dim=1)
    right = torch.cat([points[:, 1:], points[:, -1:]], dim=1)
    before = torch.cat([value[:, :1], value[:, :-1]], dim=1)
    after = torch.cat([value[:, 1:], value[:, -1:]], dim=1)
    # Of points that coincide, as many do at a bound, the outer ones alone have a bracket; values of
    # all may differ by rounding.
    is_first, is_last = points > left, points < right
    is_peak = (~is_first | (value >= before)) & (~is_last | (value >= after)) & (is_first | is_last)
    handicap = torch.where(is_peak, torch.zeros_like(value), torch.full_like(value, -1e6))
    seen = torch.topk(value + handicap, LOOKED_AT, dim=1).indices
    exact = _density(tilted, points.gather(1, seen)) + handicap.gather(1, seen)
    chosen = seen.gather(1, torch.topk(exact, CANDIDATES, dim=1).indices)
    refined = _refine(
        tilted, points.gather(1, chosen), left.gather(1, chosen), right.gather(1, chosen)
    )
    # Where rounding makes several as high, the first counts: the highest of the grid, refined.
    ends = torch.cat([refined, points.gather(1, chosen)], dim=1)
    rank = 1.0 - HIGHER * torch.arange(2 * CANDIDATES).to(points)
    reached, best = torch.topk(_density(tilted, ends) * rank, 1, dim=1)
    gap = _gap(tilted, points, (term, value), reached)
    return Mode(ends.gather(1, best).squeeze(1), gap.squeeze(1))


def _gap(tilted: Tilted, points: Tensor, density: tuple[Tensor, Tensor], reached: Tensor) -> Tensor:
    """By how much the log density may exceed that reached, [N, 1]: see the head of this file.

    Args:
        tilted: The mixture.
        points: Of the grid, [N, Q].
        density: There, each component [N, Q, M] and their sum [N, Q].
        reached: Density at the mode that was found, [N, 1].
    """
    half, height = tilted.half_precision, torch.exp(tilted.reached)
    (term, value), width = density, points[:, 1:] - points[:, :-1]
    seen = term.amax(dim=1)
    exceeds = (height - seen).clamp(min=0.0)
    ends = torch.maximum(term[:, 1:], term[:, :-1]).sum(dim=2)
    narrow = torch.where(term > NEGLIGIBLE, half.unsqueeze(1), torch.zeros_like(term)).amax(dim=2)
    # w^2 / (8 s^2) is w^2 / 4 times 1 / (2 s^2)
    rise = 0.25 * width * width * torch.maximum(narrow[:, 1:], narrow[:, :-1])
    peaks = torch.maximum(value[:, 1:], value[:, :-1]) * torch.exp(rise.clamp(max=LARGEST))
    beside = exceeds.sum(dim=1, keepdim=True)
    # What counts at neither point and yet between them has its peak there.
    unseen = torch.where(seen <= NEGLIGIBLE, height, torch.full_like(height, NEGLIGIBLE))
    peaks = peaks + unseen.sum(dim=1, keepdim=True)
    offset = tilted.inside - tilted.origin
    rounding = height * (ROUNDING * half * offset * offset).clamp(max=1.0)
    bound = torch.minimum(ends + beside, peaks).amax(dim=1, keepdim=True)
    bound = bound + rounding.sum(dim=1, keepdim=True)
    return (torch.log(bound) - torch.log(reached)).clamp(min=0.0)


def _tilt(mixture: tuple[Tensor, Tensor, Tensor], search_range: Tensor, tilt: float) -> Tilted:
    mean, log_variance, log_weight = mixture
    variance = torch.exp(log_variance)
    centre = mean - tilt * variance
    log_height = log_weight - tilt * mean + 0.5 * tilt**2 * variance - 0.5 * log_variance
    half_precision = 0.5 * torch.exp(-log_variance)
    inside = torch.clamp(centre, search_range[0], search_range[1])
    offset = inside - centre
    reached = log_height - half_precision * (offset * offset)
    highest, place = torch.max(reached, dim=1, keepdim=True)
    origin = inside.gather(1, place)
    return Tilted(centre, half_precision, log_height - highest, inside, reached - highest, origin)


def _points(tilted: Tilted, sigma: Tensor, search_range: Tensor) -> Tensor:
    """Sorted points [N, Q]: an even grid over the hull of the centres, and the highest peaks."""
    low, high = search_range[0], search_range[1]
    inside, reached = tilted.inside, tilted.reached
    counts = reached > math.log(NEGLIGIBLE)
    first = torch.where(counts, inside, high).amin(dim=1, keepdim=True)
    last = torch.where(counts, inside, low).amax(dim=1, keepdim=True)
    steps = torch.arange(GRID_POINTS, dtype=inside.dtype, device=inside.device) / (GRID_POINTS - 1)
    grid = first + (last - first) * steps
    # Whatever their number, which the graph leaves free: the first component fills up.
    lowest = torch.full_like(reached[:, :1], NEVER).expand(-1, PEAKS)
    highest = torch.topk(torch.cat([reached, lowest], dim=1), PEAKS, dim=1).indices
    peak, width = (
        torch.cat([each, each[:, :1].expand(-1, PEAKS)], dim=1).gather(1, highest)
        for each in (inside, sigma)
    )
    around = [torch.clamp(peak + step * width, low, high) for step in STEPS]
    points = torch.cat([grid, *around], dim=1)
    return torch.topk(points, points.shape[1], dim=1, largest=False).values


def _density(tilted: Tilted, points: Tensor) -> Tensor:
    """The tilted density at points [N, Q], relative to its highest peak."""
    offset = points.unsqueeze(2) - tilted.centre.unsqueeze(1)
    exponent = tilted.log_height.unsqueeze(1) - tilted.half_precision.unsqueeze(1) * (
        offset * offset
    )
    return torch.exp(exponent).sum(dim=2)


def _rough_exponent(tilted: Tilted, points: Tensor) -> Tensor:
    """Log of each component at points, [N, Q, M], with the square multiplied out.

    As one matrix product it is three times as fast. Rounding changes narrow components by up to a
    tenth, which is enough to find the peaks. It is smallest near the origin, which is therefore the
    middle of the range's highest component.
    """
    origin = tilted.origin
    points, centre = points - origin, tilted.centre - origin
    half = tilted.half_precision
    powers = torch.stack([torch.ones_like(points), points, points * points], dim=2)
    factors = torch.stack(
        [tilted.log_height - half * centre * centre, 2.0 * half * centre, -half], 1
    )
    return powers @ factors


def _refine(tilted: Tilted, point: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Local maxima [N, C] from starts and brackets around them."""
    centre, half = tilted.centre.unsqueeze(1), tilted.half_precision.unsqueeze(1)
    log_height = tilted.log_height.unsqueeze(1)
    for _ in range(ITERATIONS):
        offset = centre - point.unsqueeze(2)
        pull = offset * half
        square = pull * offset
        term = torch.exp(log_height - square)
        slope = (term * pull).sum(dim=2)  # half of the density's
        curvature = (term * half * (2.0 * square - 1.0)).sum(dim=2)
        rises = slope > 0.0
        left, right = torch.where(rises, point, left), torch.where(rises, right, point)
        newton = point - slope / torch.where(curvature < 0.0, curvature, -torch.ones_like(slope))
        is_safe = (curvature < 0.0) & (newton > left) & (newton < right)
        point = torch.where(is_safe, newton, 0.5 * (left + right))
    return point
