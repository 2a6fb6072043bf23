"""The kinds of networks: one line each, from which everything that depends on the kind follows.

Learners and exports are named, not imported: a study is checked, and its dataset made, on machines
without torch.
"""

import pkgutil
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.formats.plugins import Table
from training.settings import (
    BnnSettings,
    DnnSettings,
    MixtureDensitySettings,
    NetworkSettings,
    RepulsiveEnsembleSettings,
    TaggerSettings,
)


@dataclass(frozen=True, slots=True)
class NetworkKind:
    """One kind of network.

    Attributes:
        settings: Its settings; their `kind` is its name.
        learner: "module:class" of the `Learner`, called as (data, settings, seed=, worker=).
        autograd: The same for settings that `learner` has no step of its own for.
        export: "module:function" of a finished training and its settings to an `Exported`.
        workers_share: What is divided among workers: the rows of each batch, or the members of an
            ensemble, which is then `settings.num_networks` networks.
        weight_sets: "module:function" of settings, checkpoint and seed to the networks that are
            averaged to a density, and whose spread is sigma_stat; None where there is no density.
        section: Where in a study its settings stand: among the models, or in the section `tag`.
    """

    settings: type[NetworkSettings]
    learner: str
    export: str
    autograd: str | None = None
    workers_share: Literal["rows", "members"] = "rows"
    weight_sets: str | None = None
    section: Literal["models", "tag"] = "models"

    @property
    def name(self) -> str:
        """What `kind` says in a study and on a card."""
        return str(self.settings.model_fields["kind"].default)

    def open_learner(self, settings: NetworkSettings) -> Any:  # noqa: ANN401 - each has its own type of settings
        """The class of the learner, whose import takes in torch."""
        other = None if getattr(settings, "is_handwritten", True) else self.autograd
        return pkgutil.resolve_name(other or self.learner)

    def open_export(self) -> Any:  # noqa: ANN401 - each has its own type of settings
        """The function that exports; imports torch."""
        return pkgutil.resolve_name(self.export)

    def open_weight_sets(self) -> Any:  # noqa: ANN401 - each has its own type of settings
        """The function that gives the networks that are averaged to a density; imports torch.

        Raises:
            ValueError: The kind makes no density.
        """
        if self.weight_sets is None:
            msg = f"a model of kind {self.name} makes no density"
            raise ValueError(msg)
        return pkgutil.resolve_name(self.weight_sets)


_MIXTURE, _POINT = "training.export.mixture", "training.export.point"
_AUTOGRAD = "training.learners.autograd"

_OWN = (
    NetworkKind(
        BnnSettings,
        learner="training.learners.bayesian:BayesianNetwork",
        autograd=f"{_AUTOGRAD}:AutogradBayesian",
        export=f"{_MIXTURE}:export_bayesian",
        weight_sets=f"{_MIXTURE}:drawn_networks",
    ),
    NetworkKind(
        RepulsiveEnsembleSettings,
        learner="training.learners.ensemble:RepulsiveEnsemble",
        autograd=f"{_AUTOGRAD}:AutogradEnsemble",
        export=f"{_MIXTURE}:export_ensemble",
        weight_sets=f"{_MIXTURE}:trained_members",
        workers_share="members",
    ),
    NetworkKind(
        MixtureDensitySettings,
        learner="training.learners.plain:DensityNetwork",
        autograd=f"{_AUTOGRAD}:AutogradDensity",
        export=f"{_MIXTURE}:export_density",
        weight_sets=f"{_MIXTURE}:trained_members",
    ),
    NetworkKind(
        DnnSettings,
        learner="training.learners.plain:Regression",
        export=f"{_POINT}:export_regression",
    ),
    NetworkKind(
        TaggerSettings,
        learner="training.learners.plain:Classifier",
        export=f"{_POINT}:export_classifier",
        section="tag",
    ),
)

NETWORK_KINDS = Table(lambda: {kind.name: kind for kind in _OWN}, "network_kinds", NetworkKind)


def kind_of(settings: NetworkSettings) -> NetworkKind:
    """The kind that settings belong to."""
    return NETWORK_KINDS[settings.kind]
