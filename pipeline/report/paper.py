"""Which panels of a study are the paper's (arXiv 2412.04370), by the evaluation's axes."""

import itertools
import string
from collections.abc import Iterator, Mapping

from pipeline.report.study_data import AxisView, Scene

# By kind of panel and figure: the axes in the order of the figure's letters.
AXES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "spectrum": {
        "1": ("denominator", "numerator", "response"),
        "16": ("y", "zeta", "t", "Var_t", "lambda", "c", "f_emc", "rho"),
        "17": ("m_long", "m_lat", "ptD", "f_iso", "N_PV", "mu"),
    },
    "plane": {"4": ("denominator",), "5": ("numerator", "f_emc", "c")},
    "delta_r": {"6": ("denominator", "numerator", "f_emc", "c")},
    "delta_e": {
        "7": ("denominator", "numerator", "y", "t"),
        "8": ("f_emc", "c", "N_PV", "mu"),
        "18": ("m_long", "m_lat", "ptD", "rho", "zeta", "Var_t", "lambda", "f_iso"),
    },
    "sigma_rel": {"9": ("denominator", "numerator", "N_PV", "mu")},
}
ELSEWHERE = ""  # in place of a figure: the axes that the paper does not show


def panel_letters() -> Iterator[str]:
    """What tells a figure's panels apart: a to z, then aa, ab and so on."""
    for length in itertools.count(1):
        yield from map("".join, itertools.product(string.ascii_lowercase, repeat=length))


def axes_of(scene: Scene, kind: str, figure: str) -> Iterator[tuple[str, AxisView]]:
    """The axes of a figure that the study has, each with its number such as "7a".

    Args:
        scene: With the axes.
        kind: A key of `AXES`.
        figure: One of its figures, or `ELSEWHERE` for the axes of none.
    """
    views = {view.name: view for view in scene.axes()}
    if figure == ELSEWHERE:
        shown = {name for names in AXES[kind].values() for name in names}
        yield from (("", view) for name, view in views.items() if name not in shown)
        return
    names = AXES[kind][figure]
    for letter, name in zip("abcdefgh", names, strict=False):
        if name in views:
            yield figure + (letter if len(names) > 1 else ""), views[name]
