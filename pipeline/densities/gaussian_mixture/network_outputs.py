"""Blocks of rows of mixtures, as the compiled kernels take them: float64 and aligned.

Shape letters: S networks, N rows, K components, P = 3 K outputs of a network.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.densities.gaussian_mixture.parameters import Mixtures
from pipeline.densities.gaussian_mixture.records import row_of
from pipeline.numerics.arrays import Float32Array, FloatArray, IntArray, RealArray
from pipeline.numerics.compiled import kernel
from pipeline.numerics.special import add_components, aligned, exp64, rough_log

Parameters = tuple[RealArray, RealArray, RealArray]

_LANES = 32  # components of a row are a multiple: four vectors of float64, two of float32
_LINE = 8  # numbers in a cache line
_FAINTEST = -1e4  # log weight of a component without weight
_ABSENT = -1e300  # log weight of the components that fill up a row
_LARGEST = 300.0  # logit up to which exponentials neither overflow nor vanish


@dataclass(frozen=True, slots=True)
class NetworkOutputs:
    """Mixtures of l = log10 of the target as networks give them, uncut.

    Attributes:
        outputs_SPN: [S, 3 K, N], float32: K means, K natural logs of variances, and K natural logs
            of weights, but for a constant in each network and row.
        log_variance_bounds: What the logs of variances are limited to.
    """

    outputs_SPN: Float32Array
    log_variance_bounds: tuple[float, float]

    @property
    def num_networks(self) -> int:
        """Number S of networks that are averaged."""
        return len(self.outputs_SPN)

    @property
    def num_components(self) -> int:
        """Number K of components of each network's mixture."""
        return int(self.outputs_SPN.shape[1]) // 3

    @property
    def lower(self) -> FloatArray:
        """[N], in l; nothing is cut off."""
        return np.full(self.outputs_SPN.shape[2], -np.inf)

    @property
    def upper(self) -> FloatArray:
        """[N], in l; nothing is cut off."""
        return np.full(self.outputs_SPN.shape[2], np.inf)

    def of_rows(self, rows: IntArray) -> "NetworkOutputs":
        """The outputs of some rows, by their numbers."""
        chosen_SPN = np.ascontiguousarray(self.outputs_SPN[:, :, rows])
        return NetworkOutputs(chosen_SPN, self.log_variance_bounds)


def blocks_of(mixtures: Mixtures | NetworkOutputs, size: int) -> Iterator[tuple[slice, FloatArray]]:
    """Some rows at a time; one empty block if there are none.

    Yields:
        Which rows, and of each, [rows, 5, C], log weight, mean, 1 / sigma, sigma and weight of
        the first components of all networks, the second ones, and so on, then components without
        weight up to whole vectors. NaN in rows with a mean that is not finite, a sigma that is not
        positive and finite, or a log weight that is NaN or infinity; a weight of zero, log weight
        -inf, counts as exp(-1e4). The memory is that of the block before.
    """
    num_rows = len(mixtures.lower)
    room = _room_for(mixtures, min(size, num_rows))
    for first in range(0, max(num_rows, 1), size):
        rows = slice(first, min(first + size, num_rows))
        block = room[: rows.stop - first]
        if isinstance(mixtures, NetworkOutputs):
            _load_outputs(mixtures.outputs_SPN, first, mixtures.log_variance_bounds, block)
        else:
            parameters = (mixtures.log_weights, mixtures.means, mixtures.sigmas)
            _load_parameters(parameters, first, block)
        yield rows, block


def _room_for(mixtures: Mixtures | NetworkOutputs, rows: int) -> FloatArray:
    """Taken once, since fresh memory is slow to write to."""
    size = -(-mixtures.num_networks * mixtures.num_components // _LANES) * _LANES
    return aligned(5 * rows, size).reshape(rows, 5, size)


@kernel
def _load_parameters(parameters: Parameters, first: int, block: FloatArray) -> None:
    """Of Mixtures; compiled for each type and layout that comes in."""
    log_weights, means, sigmas = parameters
    networks, _, components = log_weights.shape
    for s in range(networks):  # rows within networks: memory is read in the order in which it lies
        for i in range(len(block)):
            for k in range(components):
                c = k * networks + s
                block[i, 0, c] = max(log_weights[s, first + i, k], _FAINTEST)
                block[i, 1, c] = means[s, first + i, k]
                block[i, 3, c] = sigmas[s, first + i, k]
    for i in range(len(block)):
        a, m, _, sigma, weight = row_of(block, i)
        _fill_up((a, m, sigma), networks * components)
        for c in range(a.size):
            weight[c] = exp64(a[c])
        _finish(block, i)


@kernel
def _load_outputs(
    outputs: Float32Array, first: int, bounds: tuple[float, float], block: FloatArray
) -> None:
    """Of NetworkOutputs."""
    networks, columns, _ = outputs.shape
    components = columns // 3
    sums = np.empty(networks)
    for column in range(columns):
        slot, start = (1, 3, 0)[column // components], column % components * networks
        for network in range(0, networks, _LINE):
            _transpose(
                outputs[network : network + _LINE, column], first, block[:, slot], start + network
            )
    for i in range(len(block)):
        a, m, _, sigma, weight = row_of(block, i)
        _fill_up((a, m, sigma), networks * components)
        for c in range(sigma.size):
            sigma[c] = exp64(0.5 * min(max(sigma[c], bounds[0]), bounds[1]))
        if not _all_moderate(a[: networks * components]):
            _lower(a, networks, components)
        for c in range(a.size):
            weight[c] = exp64(a[c])
        _normalise((a, weight), sums, components)
        _finish(block, i)


@kernel
def _transpose(outputs: Float32Array, first: int, block: FloatArray, start: int) -> None:
    """One output of as many networks as fill a cache line of the block."""
    for i in range(len(block)):
        for network in range(len(outputs)):
            block[i, start + network] = outputs[network, first + i]


@kernel
def _fill_up(row: tuple[FloatArray, FloatArray, FloatArray], used: int) -> None:
    a, m, sigma = row
    a[used:] = _ABSENT
    m[used:] = m[0]
    sigma[used:] = sigma[0]


@kernel
def _normalise(row: tuple[FloatArray, FloatArray], sums: FloatArray, components: int) -> None:
    """Divides the exponentials of logits by their sum in each network."""
    a, weight = row
    networks = sums.size
    add_components(weight, sums)
    for k in range(components):
        weights = weight[k * networks : (k + 1) * networks]
        for s in range(networks):
            weights[s] /= sums[s]
    for s in range(networks):
        sums[s] = rough_log(sums[s])
    for k in range(components):
        logs = a[k * networks : (k + 1) * networks]
        for s in range(networks):
            logs[s] = max(logs[s] - sums[s], _FAINTEST)


@kernel
def _all_moderate(logits: FloatArray) -> bool:
    """Whether exponentials neither overflow nor vanish; False with NaN."""
    count = 0
    for c in range(logits.size):
        count += int(abs(logits[c]) < _LARGEST)
    return count == logits.size


@kernel
def _lower(a: FloatArray, networks: int, components: int) -> None:
    """Has the largest of each network be zero."""
    for s in range(networks):
        top = -np.inf
        for k in range(components):
            top = max(top, a[k * networks + s])
        for k in range(components):
            a[k * networks + s] -= top


@kernel
def _finish(block: FloatArray, i: int) -> None:
    """Adds 1 / sigma; NaN to the whole row where not all is usable."""
    a, m, inverse, sigma, _ = row_of(block, i)
    faults = 0
    for c in range(a.size):  # comparisons with NaN are false
        is_good = (a[c] < np.inf) & (abs(m[c]) < np.inf)
        faults += 1 - int(is_good & (sigma[c] > 1e-300) & (sigma[c] < np.inf))
    for c in range(a.size):
        inverse[c] = 1.0 / sigma[c]
    if faults > 0:
        block[i] = np.nan
