"""Steps of any torch module with any loss, by torch's automatic gradient.

All parameters of a module are views of one flat vector, as those of the hand-written steps are, so
that the optimiser, the sum over workers, checkpoints and faults know nothing of modules. Layers
whose weights are Gaussian are replaced by `SampledLinear`, which draws fresh weights for each row
by local reparametrisation, with the noise of the step that the hand-written one has.

Shape letters: B rows of a batch, F inputs and O outputs of a layer, P parameters, M members, C some
of them, W weights, D numbers that a member predicts for a batch.
"""

import copy
import math
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from training.steps.members import FIGURES, Rows
from training.steps.noise import BLOCK_ROWS, fill_layer_noise
from training.steps.operations import VARIANCE_FLOOR
from training.steps.repulsion import repel
from training.steps.sampled import Batch
from training.steps.sums import GradientSums

RowLoss = Callable[[Tensor, Tensor], Tensor]  # outputs [..., B, O] and target [B]: loss [..., B]
LOG_VARIANCE = "log_variance"
COMPILED = "_orig_mod."  # before the names of parameters of what torch.compile returns


class SampledLinear(nn.Module):
    """A linear layer with Gaussian weights, of which each row sees its own draw.

    A unit has mean m = x weight^T + bias and variance v = x^2 exp(log_variance)^T, and becomes
    m + sqrt(v) noise (Kingma, Salimans, Welling, arXiv 1506.02557). That holds for a layer that
    sees each row once: of weights that several elements of a row share the noise would have to be
    common to them.

    Attributes:
        noise_BO: Of the rows that come next.
    """

    noise_BO: Tensor | None = None

    def __init__(self, layer: nn.Linear, log_variance_OF: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.log_variance = nn.Parameter(log_variance_OF)

    def forward(self, x_BF: Tensor) -> Tensor:
        """Units [B, O].

        Raises:
            ValueError: The rows are not those that the noise is for.
        """
        noise_BO = self.noise_BO
        if noise_BO is None or x_BF.shape[:-1] != noise_BO.shape[:-1]:
            msg = (
                f"a layer with Gaussian weights got inputs {list(x_BF.shape)} where it has noise "
                f"for {None if noise_BO is None else len(noise_BO)} rows: local reparametrisation "
                "takes a layer that sees each row once"
            )
            raise ValueError(msg)
        mean_BO = nn.functional.linear(x_BF, self.weight, self.bias)
        variance_BO = nn.functional.linear(x_BF * x_BF, self.log_variance.exp())
        return mean_BO + torch.sqrt(variance_BO + VARIANCE_FLOOR) * noise_BO


def with_gaussian_weights(
    module: nn.Module, names: Collection[str] | None, draw: Callable[[nn.Linear], Tensor]
) -> nn.Module:
    """A copy of a module some of whose linear layers have Gaussian weights.

    Args:
        module: Its weights become the means.
        names: Of the layers, as `named_modules` has them; all linear ones if None.
        draw: Makes the log variances [O, F] that a layer starts with.

    Raises:
        ValueError: A name is not that of a linear layer.
    """
    module = copy.deepcopy(module)
    linear = {name: each for name, each in module.named_modules() if isinstance(each, nn.Linear)}
    unknown = sorted(set(names or ()) - linear.keys())
    if unknown:
        msg = f"no linear layer is called {', '.join(unknown)}; there are {', '.join(linear)}"
        raise ValueError(msg)
    for name in linear if names is None else names:
        parent, _, last = name.rpartition(".")
        setattr(module.get_submodule(parent), last, SampledLinear(linear[name], draw(linear[name])))
    return module


@dataclass(frozen=True, slots=True)
class FlatParameters:
    """Where each parameter of a module stands in one vector.

    Attributes:
        shapes: By name, in the module's order.
    """

    shapes: Mapping[str, torch.Size]

    @classmethod
    def of(cls, module: nn.Module) -> "FlatParameters":
        """The order of `named_parameters`."""
        return cls({name: each.shape for name, each in module.named_parameters()})

    @property
    def places(self) -> dict[str, slice]:
        """By name."""
        places, first = {}, 0
        for name, shape in self.shapes.items():
            places[name] = slice(first, first + shape.numel())
            first += shape.numel()
        return places

    def views(self, theta_P: Tensor) -> dict[str, Tensor]:
        """Each parameter by name, as a view of the vector."""
        places = self.places
        return {name: theta_P[places[name]].view(shape) for name, shape in self.shapes.items()}

    def values(self, module: nn.Module) -> Tensor:
        """The vector [P] that a module's own parameters make."""
        parts = [each.detach().reshape(-1) for _, each in module.named_parameters()]
        return torch.cat(parts)


class Forward:
    """A module as a function of the vector of its parameters and of its inputs.

    Args:
        module: Its own parameters are not used.
        autocast: "bfloat16": its products have so few digits; outputs are float32 again.
        fuse: Let torch compile it.
        backend: Of the compiler.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        autocast: str | None = None,
        fuse: bool = False,
        backend: str = "inductor",
    ) -> None:
        self.module, self.flat = module, FlatParameters.of(module)
        self.dtype = None if autocast is None else getattr(torch, autocast)
        # Rows of lists have other numbers of elements each time.
        compiled = torch.compile(module, dynamic=True, backend=backend) if fuse else module
        self.called, self.prefix = cast("nn.Module", compiled), COMPILED if fuse else ""

    def __call__(self, theta_P: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        """Outputs [B, O]."""
        views = {self.prefix + name: each for name, each in self.flat.views(theta_P).items()}
        with ExitStack() as around:
            if self.prefix:  # the compiler asks views of the vector for a gradient of their own
                around.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor")
            if self.dtype is not None:
                around.enter_context(torch.autocast(theta_P.device.type, self.dtype))
            outputs: Tensor = functional_call(self.called, views, inputs)
        return outputs.to(theta_P.dtype)


def gaussian_layers(module: nn.Module) -> dict[str, SampledLinear]:
    """The layers with Gaussian weights, by name."""
    found = module.named_modules()
    return {name: each for name, each in found if isinstance(each, SampledLinear)}


class AutogradStep:
    """One module, all of whose weights are plain or some Gaussian; the workers share the rows.

    Args:
        theta_P: The parameters, a leaf that requires a gradient.
        sums: Filled with the gradient of the loss summed over rows, and that sum.
        forward: Of the module, called with a batch's inputs.
        loss: Of each row.
        max_rows: Of a worker's batch.
    """

    def __init__(
        self, theta_P: Tensor, sums: GradientSums, forward: Forward, loss: RowLoss, max_rows: int
    ) -> None:
        self.theta_P, self.sums, self.forward, self.loss = theta_P, sums, forward, loss
        self.layers = list(gaussian_layers(forward.module).values())
        rows = -(-max_rows // BLOCK_ROWS) * BLOCK_ROWS
        widths = [len(layer.weight) for layer in self.layers]
        self.noise = [theta_P.new_empty(rows, width, dtype=torch.float32) for width in widths]

    def __call__(self, batch: Batch) -> None:
        """Fill the sums with this worker's share of a batch."""
        if self.layers:
            noises = fill_layer_noise(self.noise, batch.key, batch.first_block, len(batch.x_BF))
            for layer, noise_BO in zip(self.layers, noises, strict=True):
                layer.noise_BO = noise_BO.to(self.theta_P.dtype)
        outputs_BO = self.forward(self.theta_P, batch.inputs)
        loss = (batch.weight_B * self.loss(outputs_BO, batch.target_B)).sum()
        (gradient_P,) = torch.autograd.grad(loss, self.theta_P)
        self.sums.gradient_P.copy_(gradient_P)
        self.sums.loss.copy_(loss.detach())


def draw_weights(
    module: nn.Module, theta_P: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Parameters by name with one draw of all Gaussian weights, on the CPU."""
    views = FlatParameters.of(module).views(theta_P.detach().cpu())
    for name in gaussian_layers(module):
        log_variance_OF = views.pop(f"{name}.{LOG_VARIANCE}")
        mean_OF = views[f"{name}.weight"]
        noise_OF = torch.randn(mean_OF.shape, generator=generator, dtype=mean_OF.dtype)
        views[f"{name}.weight"] = mean_OF + (0.5 * log_variance_OF).exp() * noise_OF
    return views


def add_kl_gradient(
    gradient_P: Tensor, theta_P: Tensor, module: nn.Module, prior_sigma: float, num_rows: int
) -> None:
    """Add the gradient of KL(q | prior) / num_rows of the Gaussian weights, in place."""
    flat, precision = FlatParameters.of(module), 1.0 / prior_sigma**2
    gradients, values = flat.views(gradient_P), flat.views(theta_P.detach())
    for name in gaussian_layers(module):
        mean, log_variance = f"{name}.weight", f"{name}.{LOG_VARIANCE}"
        gradients[mean].add_(values[mean], alpha=precision / num_rows)
        excess_OF = values[log_variance].exp().mul_(precision).sub_(1.0)
        gradients[log_variance].add_(excess_OF, alpha=0.5 / num_rows)


def kl_divergence(theta_P: Tensor, module: nn.Module, prior_sigma: float) -> float:
    """KL(q | prior) of the Gaussian weights in nats, closed form (arXiv 2412.04370, Eq. 29)."""
    values, precision, total = (
        FlatParameters.of(module).views(theta_P.detach()),
        prior_sigma**-2,
        0.0,
    )
    for name in gaussian_layers(module):
        mean, log_variance = values[f"{name}.weight"], values[f"{name}.{LOG_VARIANCE}"]
        terms = precision * (mean**2 + log_variance.exp()) - log_variance - 1.0
        total += 0.5 * terms.sum().item() + mean.numel() * math.log(prior_sigma)
    return total


Prediction = Callable[[Tensor, Tensor], Tensor]  # outputs [B, O] and target [B]: [B, any number]


class AutogradMembersStep:
    """Gradient and loss of a worker's members of a repulsive ensemble (arXiv 2412.04370, Eq. 36).

    As `EnsembleStep`, for modules: the loss is the mean loss of a batch's rows, the repulsion of
    what the members predict, and the prior of all parameters.

    Args:
        theta_CP: Parameters of this worker's members, leaves that require a gradient.
        gradient_CP: Filled.
        forward: Of the module of all members.
        loss: Of each row.
        predict: By what members tell one another apart.
        members: How many there are on all workers.
        numbers: Of this worker's among them.
        strength: Of the repulsion.
        prior: Factor of the parameters in the gradient.
        all_reduce: Sums over the workers.
    """

    def __init__(  # noqa: PLR0913 - what a step consists of
        self,
        theta_CP: Sequence[Tensor],
        gradient_CP: Sequence[Tensor],
        forward: Forward,
        *,
        loss: RowLoss,
        predict: Prediction,
        members: int,
        numbers: range,
        strength: float,
        prior: float,
        all_reduce: Callable[[Tensor], None],
    ) -> None:
        self.theta_CP, self.gradient_CP, self.forward = theta_CP, gradient_CP, forward
        self.loss, self.predict, self.numbers = loss, predict, numbers
        self.strength, self.prior, self.all_reduce = strength, prior, all_reduce
        self.members, first = members, theta_CP[0]
        self.figures_MF = first.new_zeros(members, FIGURES, dtype=torch.float64)
        self.bandwidth = first.new_zeros((), dtype=torch.float64)
        self.spread = first.new_zeros((), dtype=torch.float64)

    def __call__(self, batch: Batch) -> None:
        """Fill gradients and figures; the latter are zero where other workers have the member."""
        outputs = list(self.outputs(batch.inputs))
        predictions = [self.predict(each, batch.target_B).flatten() for each in outputs]
        repulsion = repel(self.gather([each.detach() for each in predictions]), self.strength)
        self.bandwidth.copy_(repulsion.bandwidth)
        self.spread.copy_(repulsion.spread)
        self.figures_MF.zero_()
        for place, number in enumerate(self.numbers):
            force_D = repulsion.force_MD[number].to(outputs[place].dtype)
            self._fill_member(place, outputs[place], predictions[place], force_D, batch)

    def outputs(self, inputs: tuple[Tensor, ...]) -> Iterator[Tensor]:
        """Outputs [B, O] of each of this worker's members."""
        for theta_P in self.theta_CP:
            yield self.forward(theta_P, inputs)

    @torch.no_grad()
    def log_densities(self, rows: Rows) -> Tensor:
        """Minus the loss [M, B] of each row by each member of all workers."""
        return self.gather([-self.loss(each, rows.target_N) for each in self.outputs(rows.inputs)])

    def gather(self, of_member: Sequence[Tensor]) -> Tensor:
        """A row of numbers for each member of all workers, [M, D]."""
        rows_MD = of_member[0].new_zeros(self.members, len(of_member[0]))
        rows_MD[self.numbers.start : self.numbers.stop] = torch.stack(list(of_member))
        self.all_reduce(rows_MD)  # to add zeros changes no bit
        return rows_MD

    def _fill_member(
        self, place: int, outputs_BO: Tensor, prediction_D: Tensor, force_D: Tensor, batch: Batch
    ) -> None:
        loss = (batch.weight_B * self.loss(outputs_BO, batch.target_B)).sum()
        (likelihood_BO,) = torch.autograd.grad(
            loss / len(outputs_BO), outputs_BO, retain_graph=True
        )
        (push_BO,) = torch.autograd.grad(prediction_D, outputs_BO, force_D, retain_graph=True)
        theta_P, gradient_P = self.theta_CP[place], self.gradient_CP[place]
        (both_P,) = torch.autograd.grad(outputs_BO, theta_P, likelihood_BO + push_BO)
        gradient_P.copy_(both_P).add_(theta_P.detach(), alpha=self.prior)
        norms = [torch.linalg.vector_norm(each) for each in (gradient_P, likelihood_BO, push_BO)]
        figures = torch.stack([loss.detach(), *norms]).double()
        figures[1:].square_()
        self.figures_MF[self.numbers[place]] = figures
