"""Learners of any torch module with any loss, by torch's automatic gradient, in three treatments.

Each is the hand-written learner of its kind with another step: what the workers share, the
penalty, what the history tells and what is validated stay. Here the module is the fully connected
network and the loss that of the density's family; another subclass replaces `_module` and `_loss`.

Shape letters: B rows, O outputs of a network, P parameters, M members, C some of them, S weight
sets.
"""

import functools
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pipeline.formats.families import FAMILIES
from pipeline.formats.seeds import derive_seed
from training.data.rows import TrainingRows
from training.data.training_data import TrainingData
from training.learners.bayesian import WEIGHT_SETS, BayesianNetwork
from training.learners.ensemble import RepulsiveEnsemble
from training.learners.plain import DensityNetwork
from training.networks.encoders import build_network, head_layers
from training.settings import BnnSettings, DensitySettings, Part
from training.steps.autograd import (
    LOG_VARIANCE,
    AutogradMembersStep,
    AutogradStep,
    FlatParameters,
    Forward,
    Prediction,
    RowLoss,
    add_kl_gradient,
    draw_weights,
    gaussian_layers,
    kl_divergence,
    with_gaussian_weights,
)
from training.steps.members import MembersStep
from training.steps.sampled import Step
from training.worker import Worker


def family_loss(settings: DensitySettings) -> RowLoss:
    """The negative log density [..., B] of outputs [..., B, O] at the rows' targets [B].

    Of several targets, [B, T], that of all together: the sum over the targets.
    """
    log_density = FAMILIES[settings.family].load("log_density")
    bounds, count = settings.log_variance_bounds, settings.num_targets

    def loss(outputs_BO: Tensor, target_B: Tensor) -> Tensor:
        of_targets = zip(outputs_BO.chunk(count, dim=-1), _by_target(target_B, count), strict=True)
        log_ps = [log_density(outputs, target, bounds) for outputs, target in of_targets]
        log_p_B: Tensor = functools.reduce(operator.add, log_ps)
        return -log_p_B

    return loss


def location_loss(settings: DensitySettings) -> RowLoss:
    """The squared distance [..., B] of the rows' targets from the location of their densities."""
    locations, count = locations_of(settings), settings.num_targets

    def loss(outputs_BO: Tensor, target_B: Tensor) -> Tensor:
        of_targets = zip(locations(outputs_BO), _by_target(target_B, count), strict=True)
        distances = [target - location for location, target in of_targets]
        return functools.reduce(operator.add, [each * each for each in distances])

    return loss


def locations_of(settings: DensitySettings) -> Callable[[Tensor], list[Tensor]]:
    """The location [..., B] of the density of each target, from outputs [..., B, O]."""
    location, count = FAMILIES[settings.family].load("location"), settings.num_targets
    return lambda outputs_BO: [location(each) for each in outputs_BO.chunk(count, dim=-1)]


def _by_target(target_B: Tensor, count: int) -> Sequence[Tensor]:
    """The values [B] of each target."""
    return [target_B] if count == 1 else target_B.unbind(dim=-1)


class AutogradDensity(DensityNetwork):
    """One plain network, trained in stages if the settings name some.

    Hidden layers and output are two networks to optimiser and checkpoints, each with moments of its
    own: a stage trains both or one.
    """

    module: nn.Module
    parts: Sequence[Part] = get_args(Part)

    def _module(self, generator: torch.Generator) -> nn.Module:
        return network_of(self.settings, self.data, generator)

    def _places(self) -> list[slice]:
        """Of the parts among the parameters."""
        places = FlatParameters.of(self.module).places
        first, *_, last = places.values()
        output = next(at for name, at in places.items() if name.startswith(self._output_name()))
        return [slice(first.start, output.start), slice(output.start, last.stop)]

    def _output_name(self) -> str:
        """Of the layer that makes the outputs."""
        return head_layers(self.module)[-1]

    def _initial(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(seed, "initial weights"))
        self.module = self._module(generator).to(self.worker.device)
        return FlatParameters.of(self.module).values(self.module)

    def _make_step(self, max_rows: int) -> Step:
        places = self._places()
        self.networks = [self.theta_P[place].detach().requires_grad_() for place in places]
        self.gradients = [self.sums.gradient_P[place] for place in places]
        self.num_networks, self.numbers = len(places), range(len(places))
        leaf_P = self.theta_P.detach().requires_grad_()
        self.step = AutogradStep(
            leaf_P,
            self.sums,
            forward_of(self.settings, self.worker, self.module),
            family_loss(self.settings),
            max_rows,
        )
        self.start_epoch(0)
        return self.step

    def renewed_at(self, epoch: int) -> Sequence[Tensor]:
        """The parts that a stage which begins here trains anew, or with another loss."""
        stages, number = self.settings.stages, self.settings.stage_at(epoch)
        if epoch not in self.settings.stage_ends[:-1]:
            return ()
        renewed = stages[number].renewed(stages[number - 1])
        return [self.networks[self.parts.index(part)] for part in renewed]

    def start_epoch(self, epoch: int) -> None:
        """The loss and the trained parts of the epoch's stage."""
        if not self.settings.stages:
            trained: Sequence[Part] = self.parts
        else:
            stage = self.settings.stages[self.settings.stage_at(epoch)]
            trained = stage.trained
            is_nll = stage.loss == "nll"
            self.score = "nll" if is_nll else "loss"
            self.step.loss = (family_loss if is_nll else location_loss)(self.settings)
        for part, theta_P, gradient_P in zip(
            self.parts, self.networks, self.gradients, strict=True
        ):
            theta_P.grad = gradient_P if part in trained else None

    def _outputs(self, rows: TrainingRows) -> Tensor:
        outputs_BO: Tensor = self.step.forward(self.theta_P, rows.inputs)
        return outputs_BO

    def _loss_of_rows(self, outputs_BO: Tensor, target_B: Tensor) -> Tensor:
        return self.step.loss(outputs_BO, target_B)


def network_of(
    settings: DensitySettings, data: TrainingData, generator: torch.Generator
) -> nn.Module:
    """The network that is trained on some data."""
    return build_network(settings, data.train.num_features, data.train.table_widths, generator)


def forward_of(settings: DensitySettings, worker: Worker, module: nn.Module) -> Forward:
    """A module as a function of its parameters, computed as settings and place ask for."""
    fuse = worker.fuse and worker.device.type == "cuda"
    return Forward(module, autocast=settings.autocast, fuse=fuse)


def gaussian_network(
    settings: BnnSettings, module: nn.Module, generator: torch.Generator
) -> nn.Module:
    """The network with Gaussian weights in linear layers that see each row once.

    Args:
        settings: Which of them, and where the log variances start.
        module: Whose weights become the means.
        generator: Draws what the log variances differ by at first.
    """

    def draw(layer: nn.Linear) -> Tensor:
        jitter_OF = torch.randn(layer.weight.shape, generator=generator)
        return settings.initial_log_variance + 1e-3 * jitter_OF

    names = head_layers(module)
    chosen = range(len(names)) if settings.gaussian_layers is None else settings.gaussian_layers
    return with_gaussian_weights(module, {names[number]: None for number in chosen}, draw)


class AutogradBayesian(BayesianNetwork):
    """A network with Gaussian weights, by local reparametrisation; biases are plain."""

    module: nn.Module

    def _module(self, generator: torch.Generator) -> nn.Module:
        plain = network_of(self.settings, self.data, generator)
        return gaussian_network(self.settings, plain, generator)

    def _loss(self) -> RowLoss:
        return family_loss(self.settings)

    def _initial(self, generator: torch.Generator) -> Tensor:
        self.module = self._module(generator).to(self.worker.device)
        return FlatParameters.of(self.module).values(self.module)

    def _make_step(self) -> Step:
        rows = max(step.rows for step in self.plan)
        forward = forward_of(self.settings, self.worker, self.module)
        return AutogradStep(self.networks[0], self.sums, forward, self._loss(), rows)

    def _add_kl(self, grad_P: Tensor) -> None:
        prior_sigma, num_rows = self.settings.prior_sigma, self.num_rows
        add_kl_gradient(grad_P, self.theta_P, self.module, prior_sigma, num_rows)

    def _kl(self) -> float:
        return kl_divergence(self.theta_P, self.module, self.settings.prior_sigma)

    def _log_variances(self) -> Tensor:
        views = FlatParameters.of(self.module).views(self.theta_P)
        names = gaussian_layers(self.module)
        return torch.cat([views[f"{name}.{LOG_VARIANCE}"].flatten() for name in names])

    @torch.no_grad()
    def _validation_nll(self, slabs: Iterable[TrainingRows]) -> Tensor:
        """The sum over rows of weight times NLL of the density averaged over eight weight sets."""
        plain, loss = network_of(self.settings, self.data, torch.Generator()), self._loss()
        sets = [
            draw_weights(
                self.module,
                self.theta_P,
                torch.Generator().manual_seed(derive_seed(self.seed, "validation", index)),
            )
            for index in range(WEIGHT_SETS)
        ]
        device = self.theta_P.device
        there = [{name: each.to(device) for name, each in drawn.items()} for drawn in sets]
        total = torch.zeros((), dtype=torch.float64, device=device)
        for slab in slabs:
            for part in slab.pieces(self.plan[0].batch_rows):
                log_p_SB = torch.stack([
                    -loss(functional_call(plain, drawn, part.inputs), part.target_N)
                    for drawn in there
                ])
                log_p_B = torch.logsumexp(log_p_SB, dim=0) - math.log(WEIGHT_SETS)
                weighted_B = log_p_B if part.weight_N is None else part.weight_N * log_p_B
                total -= weighted_B.sum(dtype=torch.float64)
        return total


class AutogradEnsemble(RepulsiveEnsemble):
    """Members of a repulsive ensemble."""

    def _module(self, generator: torch.Generator) -> nn.Module:
        return network_of(self.settings, self.data, generator)

    def _loss(self) -> RowLoss:
        return family_loss(self.settings)

    def _prediction(self) -> Prediction:
        """What the repulsion's kernel compares, as `settings.kernel` says."""
        loss, locations = self._loss(), locations_of(self.settings)
        kinds: dict[str, Prediction] = {
            "mixture_mean": lambda outputs_BO, _: torch.stack(locations(outputs_BO), dim=-1),
            "nll": loss,
            "outputs": lambda outputs_BO, _: outputs_BO,
        }
        return kinds[self.settings.kernel]

    def _initial_member(self, generator: torch.Generator) -> Tensor:
        module = self._module(generator)
        return FlatParameters.of(module).values(module)

    def _make_step(self, grad_CP: Tensor) -> MembersStep:
        settings = self.settings
        return AutogradMembersStep(
            self.networks,
            list(grad_CP),
            forward_of(
                settings, self.worker, self._module(torch.Generator()).to(self.worker.device)
            ),
            loss=self._loss(),
            predict=self._prediction(),
            members=settings.members,
            numbers=self.numbers,
            strength=settings.repulsion_scale / self.num_rows,
            prior=1.0 / (self.num_rows * settings.prior_sigma**2),
            all_reduce=self.worker.all_reduce,
        )
