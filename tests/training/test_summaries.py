"""The exported graph of the summaries is the module that it was made from."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from training.export.summaries import FILE, LIMITS, PARTS, Summaries

BOUNDS, REACH = torch.tensor((-9.0, 0.0)), torch.tensor((-1.1, 1.6))


@pytest.fixture(scope="module")
def session():
    return onnxruntime.InferenceSession(FILE, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("networks", "components", "rows"), [(1, 1, 1), (1, 5, 40), (50, 3, 7)])
def test_any_number_of_networks_components_and_rows(session, networks, components, rows):
    generator = torch.Generator().manual_seed(3)
    shape = (networks, components, rows)
    mean, spread, logit = (torch.randn(shape, generator=generator) for _ in range(3))
    given = (0.3 * mean, 3.0 * spread - 4.0, logit, BOUNDS, REACH)
    found = session.run(
        None, {name: each.numpy() for name, each in zip((*PARTS, *LIMITS), given, strict=True)}
    )
    for name, values, expected in zip(Summaries.outputs, found, Summaries()(*given), strict=True):
        assert values.shape == tuple(expected.shape)
        if "central" not in name:  # which may be at another of peaks of the same height
            np.testing.assert_allclose(values, expected.numpy(), rtol=1e-4, atol=2e-6, err_msg=name)
    central = dict(zip(Summaries.outputs, found, strict=True))["central"]
    np.testing.assert_allclose(np.median(central / Summaries()(*given)[4].numpy()), 1, atol=1e-4)


def test_the_file_names_no_place_of_the_machine_it_was_made_on():
    assert b".py" not in FILE.read_bytes()
    model = onnx.load(FILE)
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
