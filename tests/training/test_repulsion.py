"""The repulsive term alone and the whole step, against automatic derivatives of Eq. 36."""

import itertools
import math
from typing import get_args

import numpy as np
import pytest
import torch
from training_fixtures import tiny_ensemble

from training.losses.density_nll import log_density, split_outputs
from training.networks import mlp as network
from training.settings import Kernel
from training.steps import members
from training.steps.members import EnsembleStep, aligned_rows
from training.steps.noise import keys_of_epoch
from training.steps.operations import COMPILED, PLAIN
from training.steps.repulsion import repel
from training.steps.sampled import Batch

SIZES, MEMBERS, NUM_ROWS = (4, 7, 5, 6), 4, 300
BOUNDS = (-3.0, 0.5)
KERNELS = get_args(Kernel)


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def kernel_of(q_MD, other_MD):
    """exp(-d^2 / 2h), without a gradient through h; all M^2 distances count for the median."""
    square_MM = (q_MD[:, None] - other_MD[None]).square().sum(-1)
    median = float(np.median(square_MM.detach().numpy()))
    return torch.exp(-square_MM * math.log(len(q_MD) + 1) / median)


def naive_term(q_MD):
    """Sum over i of the sum over j of k(q_i, sg q_j), over that sum without gradient."""
    total_M = kernel_of(q_MD, q_MD.detach()).sum(1)
    return (total_M / total_M.detach()).sum()


def ensemble(seed=0, dtype=torch.float64):
    count = network.count_weights(SIZES) + sum(SIZES[1:])
    return 0.5 * random(MEMBERS, count, seed=seed, dtype=dtype)


def batch(rows=61, dtype=torch.float64):
    weight_B = random(rows, seed=3, dtype=dtype) + 1.0  # some are negative
    target_B = 0.3 * random(rows, seed=2, dtype=dtype)
    x_BF = random(rows, SIZES[0], seed=1, dtype=dtype)
    return Batch(x_BF, target_B, weight_B, keys_of_epoch(3, 1, 1)[0], 0)


def step_of(theta_MP, given, operations=PLAIN, **changes):
    """The step that was taken, with its gradient."""
    settings = tiny_ensemble(members=len(theta_MP), log_variance_bounds=BOUNDS, **changes)
    theta_CP, grad_CP = (aligned_rows(*theta_MP.shape, theta_MP) for _ in "12")
    step = EnsembleStep(
        theta_CP.copy_(theta_MP),
        grad_CP.fill_(torch.nan),
        SIZES,
        len(given.x_BF) + 30,
        settings=settings,
        num_rows=NUM_ROWS,
        numbers=range(len(theta_MP)),
        all_reduce=lambda _: None,
        operations=operations,
    )
    step(given)
    return step


def naive_outputs(theta_MP, given):
    return torch.stack([
        network.forward_fixed(network.split_member(theta_P, SIZES), given.x_BF)
        for theta_P in theta_MP
    ])


def naive_prediction(kernel, outputs_MBO, given):
    if kernel == "outputs":
        return outputs_MBO.flatten(1)
    if kernel == "nll":
        return -log_density(outputs_MBO, given.target_B.expand(len(outputs_MBO), -1), BOUNDS)
    mean, _, log_weight = split_outputs(outputs_MBO, BOUNDS)
    return (log_weight.exp() * mean).sum(-1)


def naive_parts(kernel, theta_MP, given, scale, sigma):
    """The three terms of the loss, from arXiv 2412.04370, Eq. 36."""
    outputs_MBO = naive_outputs(theta_MP, given)
    target_MB = given.target_B.expand(len(theta_MP), -1)
    nll = -(given.weight_B * log_density(outputs_MBO, target_MB, BOUNDS)).mean(1).sum()
    repulsion = scale * naive_term(naive_prediction(kernel, outputs_MBO, given)) / NUM_ROWS
    return nll, repulsion, theta_MP.square().sum() / (2 * NUM_ROWS * sigma**2)


@pytest.mark.parametrize("shape", [(2, 3), (5, 40), (8, 1)])
def test_force_is_the_derivative_of_the_term(shape):
    q_MD = (10.0 + random(*shape)).requires_grad_()
    (expected_MD,) = torch.autograd.grad(naive_term(q_MD), q_MD)
    found = repel(q_MD.detach(), 1.0)
    torch.testing.assert_close(found.force_MD, expected_MD, rtol=1e-12, atol=1e-13)
    assert torch.equal(repel(q_MD.detach(), -2.0).force_MD, -2.0 * found.force_MD)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e6])
def test_step_is_the_derivative_of_the_loss(kernel, scale):
    theta_MP, given = ensemble().requires_grad_(), batch()
    parts = naive_parts(kernel, theta_MP, given, scale, sigma=0.7)
    (expected_MP,) = torch.autograd.grad(sum(parts), theta_MP)
    found = step_of(theta_MP.detach(), given, kernel=kernel, repulsion_scale=scale, prior_sigma=0.7)
    size = expected_MP.abs().max().item()
    torch.testing.assert_close(found.grad_CP, expected_MP, rtol=1e-12, atol=1e-12 * size)
    nll = found.figures_MF[:, 0].sum().item() / len(given.x_BF)
    assert nll == pytest.approx(parts[0].item(), rel=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_figures_are_those_of_the_gradients(kernel):
    """The squared norms, by member, of the gradient and of two of its parts at the outputs."""
    theta_MP, given = ensemble(), batch()
    found = step_of(theta_MP, given, kernel=kernel, repulsion_scale=100.0)
    outputs_MBO = naive_outputs(theta_MP, given).requires_grad_()
    target_MB = given.target_B.expand(MEMBERS, -1)
    nll = -(given.weight_B * log_density(outputs_MBO, target_MB, BOUNDS)).mean(1).sum()
    q_MD = naive_prediction(kernel, outputs_MBO, given)
    for column, part in ((2, nll), (3, 100.0 * naive_term(q_MD) / NUM_ROWS)):
        (grad_MBO,) = torch.autograd.grad(part, outputs_MBO, retain_graph=True)
        torch.testing.assert_close(found.figures_MF[:, column], grad_MBO.square().sum((1, 2)))
    torch.testing.assert_close(found.figures_MF[:, 1], found.grad_CP.square().sum(1))
    spread = q_MD.var(0, correction=0).mean().sqrt()
    torch.testing.assert_close(found.spread, spread.detach())
    squares = [(one - other).square().sum().item() for one in q_MD for other in q_MD]
    expected = np.median(squares) / (2 * math.log(MEMBERS + 1))
    assert found.bandwidth.item() == pytest.approx(expected, rel=1e-12)


def test_at_the_median_distance_the_kernel_is_one_over_members_plus_one():
    q_MD = torch.tensor([[0.0], [1.0], [2.0]])  # squared distances 0, 0, 0, 1, 1, 1, 1, 4, 4
    bandwidth = repel(q_MD, 1.0).bandwidth.item()
    assert math.exp(-1.0 / (2.0 * bandwidth)) == pytest.approx(1.0 / 4.0)


def test_permuted_members_have_permuted_gradients():
    theta_MP, given, order = ensemble(), batch(), [2, 0, 3, 1]
    one = step_of(theta_MP, given, repulsion_scale=1e6)
    other = step_of(theta_MP[order], given, repulsion_scale=1e6)
    size = one.grad_CP.abs().max().item()
    torch.testing.assert_close(other.grad_CP, one.grad_CP[order], rtol=1e-11, atol=1e-12 * size)


@pytest.mark.parametrize("count", [1, 3])
def test_members_that_agree_are_not_repelled(count):
    theta_MP = ensemble()[:1].repeat(count, 1)
    found = step_of(theta_MP, batch(), repulsion_scale=1e6)
    alone = step_of(theta_MP, batch(), repulsion_scale=0.0)
    assert torch.isfinite(found.grad_CP).all()
    assert torch.equal(found.grad_CP, alone.grad_CP)
    assert found.bandwidth.item() == pytest.approx(0.0, abs=1e-25)


def test_descending_leads_away_from_the_others():
    q_MD = torch.tensor([[-0.1, 0.0], [0.1, 0.0], [0.0, 5.0], [0.0, -5.0]])
    step_MD = -repel(q_MD, 1.0).force_MD
    assert step_MD[0, 0] < 0.0 < step_MD[1, 0]
    assert step_MD[3, 1] < 0.0 < step_MD[2, 1]


def test_only_repulsion_separates_members_that_are_nearly_the_same():
    """Fifty steps of gradient descent on one batch; the two differ by 1e-4 of one weight."""
    given = batch()
    distances = {}
    for scale in (0.0, 300.0):
        theta_MP = ensemble()[[0, 0, 1, 2]]
        theta_MP[1, 0] += 1e-4
        for _ in range(50):
            theta_MP -= 1e-2 * step_of(theta_MP, given, repulsion_scale=scale).grad_CP
        q_MD = naive_prediction("mixture_mean", naive_outputs(theta_MP, given), given)
        distances[scale] = (q_MD[0] - q_MD[1]).norm().item()
    assert distances[300.0] > 3.0 * distances[0.0]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("rows", [61, 90])
def test_batched_products_equal_one_member_after_the_other(monkeypatch, kernel, rows):
    """As on a GPU: all members at once; the figures are those of all together."""
    theta_MP, given = ensemble(), batch(rows)
    one = step_of(theta_MP, given, kernel=kernel, repulsion_scale=1e3)
    monkeypatch.setattr(members, "networks_at_once", len)
    other = step_of(theta_MP, given, kernel=kernel, repulsion_scale=1e3)
    torch.testing.assert_close(other.grad_CP, one.grad_CP, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(other.figures_MF.sum(0), one.figures_MF.sum(0))
    assert (other.figures_MF[1:] == 0.0).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_compiled_operations_equal_those_of_torch(kernel):
    theta_MP, given = ensemble(dtype=torch.float32), batch(500, dtype=torch.float32)
    plain = step_of(theta_MP, given, kernel=kernel, repulsion_scale=100.0)
    compiled = step_of(theta_MP, given, COMPILED, kernel=kernel, repulsion_scale=100.0)
    size = plain.grad_CP.abs().max().item()
    torch.testing.assert_close(compiled.grad_CP, plain.grad_CP, rtol=2e-5, atol=2e-5 * size)
    torch.testing.assert_close(compiled.figures_MF, plain.figures_MF, rtol=1e-4, atol=1e-6)


def test_what_a_member_computes_does_not_depend_on_who_shares_its_worker():
    """Bitwise, with the predictions of the other workers' members added as they would be."""
    theta_MP, given = ensemble(dtype=torch.float32), batch(500, dtype=torch.float32)
    whole = step_of(theta_MP, given, COMPILED, repulsion_scale=1e6)
    q_MB = whole.room[: MEMBERS * 500].view(MEMBERS, 500).clone()
    settings = tiny_ensemble(members=MEMBERS, log_variance_bounds=BOUNDS, repulsion_scale=1e6)
    for first, last in itertools.pairwise([0, 1, MEMBERS]):

        def add_others(gathered_MB, mine=slice(first, last)):
            others_MB = q_MB.clone()
            others_MB[mine] = 0.0
            gathered_MB += others_MB

        part_CP, grad_CP = (aligned_rows(last - first, len(theta_MP[0]), theta_MP) for _ in "12")
        part = EnsembleStep(
            part_CP.copy_(theta_MP[first:last]),
            grad_CP,
            SIZES,
            500,
            settings=settings,
            num_rows=NUM_ROWS,
            numbers=range(first, last),
            all_reduce=add_others,
            operations=COMPILED,
        )
        part(given)
        assert torch.equal(part.grad_CP, whole.grad_CP[first:last])
        assert torch.equal(part.figures_MF[first:last], whole.figures_MF[first:last])
        assert torch.equal(part.bandwidth, whole.bandwidth)


@pytest.mark.parametrize("broken", [0, 3])
def test_a_member_that_is_not_finite_is_seen_in_all(broken):
    theta_MP = ensemble(dtype=torch.float32)
    theta_MP[broken, -1] = torch.inf
    found = step_of(theta_MP, batch(dtype=torch.float32), COMPILED)
    assert not torch.isfinite(found.figures_MF[:, 1]).any()
