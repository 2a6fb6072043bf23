"""Whether the repulsion of an ensemble matters, in words."""

from collections.abc import Iterator

import numpy as np

from pipeline.report.study_data import Column, Scene

# Measured on ensembles of 50 members of the paper's networks: at a ratio of 4e-5 the statistical
# uncertainty was that without repulsion to three digits, at 2e-2 to 3e-2 a quarter larger.
NEGLIGIBLE, FELT = 1e-3, 1e-2


def repulsion_texts(scene: Scene) -> Iterator[str]:
    """A paragraph for each repulsive ensemble, from its history (Eq. 36)."""
    for name, history in scene.histories.items():
        ratios = np.array([line.get("repulsion_ratio", np.nan) for line in history], dtype=float)
        if np.isfinite(ratios).any():
            spreads = [line.get("spread") for line in history]
            yield describe_repulsion(scene.look(name).label, ratios, spreads[-1])


def describe_repulsion(label: str, ratios: Column, spread: float | None) -> str:
    """What a history's ratios mean.

    Args:
        label: Of the ensemble.
        ratios: [epochs] norm of the repulsive gradient over that of the likelihood's.
        spread: Of the members' predictions in the last epoch; None if it is not known.
    """
    seen = ratios[np.isfinite(ratios)]
    last, low, high = float(seen[-1]), float(seen.min()), float(seen.max())
    if high == 0.0:
        return (
            f"{label}: the repulsion was off or had nothing to push apart (ratio of gradients 0): "
            "a plain ensemble whose members differ by their start and by nothing else."
        )
    found = (
        f"{label}: in the last epoch the repulsive gradient was {_power(last)} of the likelihood's "
        f"({_power(low)} to {_power(high)} over the training)."
    )
    apart = "" if spread is None else f" ({spread:.2g} in log10 of the target, root mean square)"
    if high < NEGLIGIBLE:
        return (
            f"{found} That is too weak to matter: what keeps the members{apart} apart is their "
            "different start, not the repulsion, and the spread that is shown as statistical "
            "uncertainty is that of a plain ensemble. A larger repulsion_scale makes it felt, from "
            f"a ratio of about {FELT:g}."
        )
    if high < FELT:
        return (
            f"{found} That is weak: the members{apart} are kept apart mostly by their different "
            "start; the repulsion may add a little to the statistical uncertainty."
        )
    return (
        f"{found} That is strong enough to matter: the repulsion pushes the members{apart} apart, "
        "and the statistical uncertainty depends on repulsion_scale."
    )


def _power(value: float) -> str:
    """A share in words that stay readable when it is tiny."""
    if value >= 1e-3:
        return f"{value:.2g}"
    mantissa, power = f"{value:.1e}".split("e")
    return rf"{mantissa} $\times$ 10$^{{{int(power)}}}$"
