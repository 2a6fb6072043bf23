"""The section `report` of a study."""

from typing import Annotated

from pydantic import Field

from pipeline.formats.records import Record


class ReportSettings(Record):
    """How a study is shown.

    Attributes:
        title: Heading of the page; the study's name if None.
        sample: Words over each figure; "Simulated sample" or the study's name if None.
        description: A paragraph on what the study is for; none if None.
        set_labels: By set: its name in legends and tables.
        column_labels: By column: its symbol in figures, as mathematical text.
        dpi: Resolution of two-dimensional figures.
    """

    title: str | None = None
    sample: str | None = None
    description: str | None = None
    set_labels: dict[str, str] = Field(
        default={
            "em": "EM scale",
            "oracle": "exact density",
            "histogram": "histogram",
            "bnn": "BNN",
            "re": "RE",
            "mdn": "MDN",
            "dnn": "DNN",
            "lcw": "LCW",
        }
    )
    column_labels: dict[str, str] = Field(
        default={
            "response": r"$R$",
            "energy": r"$E$",
            "clusterE": r"$E^\mathrm{EM}$",
            "cluster_ENG_CALIB_TOT": r"$E^\mathrm{dep}$",
            "clusterEta": r"$y$",
            "cluster_SIGNIFICANCE": r"$\zeta$",
            "cluster_SECOND_TIME": r"$\mathrm{Var}(t_\mathrm{cell})$",
            "cluster_CENTER_LAMBDA": r"$\lambda$",
            "cluster_CENTER_MAG": r"$|\vec{c}|$",
            "cluster_FIRST_ENG_DENS": r"$\rho$",
            "cluster_LONGITUDINAL": r"$\langle m_\mathrm{long}^2\rangle$",
            "cluster_LATERAL": r"$\langle m_\mathrm{lat}^2\rangle$",
            "cluster_PTD": r"$p_\mathrm{T}D$",
            "cluster_ENG_FRAC_EM": r"$f_\mathrm{emc}$",
            "cluster_ISOLATION": r"$f_\mathrm{iso}$",
            "cluster_time": r"$t$",
            "nPrimVtx": r"$N_\mathrm{PV}$",
            "avgMu": r"$\mu$",
        }
    )
    dpi: Annotated[int, Field(ge=50)] = 150
