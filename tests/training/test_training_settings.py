import subprocess
import sys

import pytest
from pydantic import ValidationError

from training.settings import BnnSettings, OptimizerSettings, RepulsiveEnsembleSettings


def test_defaults_are_the_papers():
    settings = BnnSettings()
    assert settings.hidden == (64, 64, 64, 64)
    assert (settings.components, settings.samples) == (3, 50)
    assert (settings.epochs, settings.batch_rows) == (150, 4096)
    assert settings.optimizer == OptimizerSettings(
        learning_rate=1e-4, milestones=(25, 100), gamma=0.1
    )


def test_an_ensemble_has_the_papers_networks():
    settings, bnn = RepulsiveEnsembleSettings(), BnnSettings()
    shared = settings.model_dump(exclude={"kind", "members", "repulsion_scale", "kernel"})
    assert shared == bnn.model_dump(include=shared.keys())
    assert (settings.members, settings.repulsion_scale, settings.kernel) == (
        50,
        1.0,
        "mixture_mean",
    )
    assert settings.num_networks == bnn.num_networks == 50


@pytest.mark.parametrize(
    "wrong", [{"members": 0}, {"repulsion_scale": -1.0}, {"kernel": "weights"}, {"samples": 3}]
)
def test_settings_of_an_ensemble_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        RepulsiveEnsembleSettings.model_validate(wrong)


def test_rate_falls_when_a_milestone_is_completed():
    optimizer = OptimizerSettings()
    rates = [optimizer.rate_at(epoch) for epoch in (0, 24, 25, 99, 100, 149)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5, 1e-6, 1e-6], rel=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden": ()},
        {"components": 0},
        {"epochs": 0},
        {"batch_rows": -1},
        {"prior_sigma": 0.0},
        {"log_variance_bounds": (0.0, -14.0)},
        {"features": ("a", "a")},
        {"features": ()},
        {"optimizer": {"milestones": (5, 5)}},
        {"optimizer": {"gamma": 1.5}},
        {"unknown": 1},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        BnnSettings.model_validate(wrong)


def test_settings_need_no_torch():
    code = "import sys, training.settings; sys.exit(bool({'torch', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_one_module_imports_ray():
    code = (
        "import sys, training.train, training.export, training.loop; sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
