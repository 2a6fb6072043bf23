"""The exported graph of the summaries is the module that it was made from."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from training.export.summaries import FILES, LIMITS, PARTS, Summaries

BOUNDS, REACH = torch.tensor((-9.0, 0.0)), torch.tensor((-1.1, 1.6))


@pytest.mark.parametrize("transform", FILES)
@pytest.mark.parametrize(("networks", "components", "rows"), [(1, 1, 1), (1, 5, 40), (50, 3, 7)])
def test_any_number_of_networks_components_and_rows(transform, networks, components, rows):
    session = onnxruntime.InferenceSession(FILES[transform], providers=["CPUExecutionProvider"])
    summaries = Summaries(transform)
    generator = torch.Generator().manual_seed(3)
    shape = (networks, components, rows)
    mean, spread, logit = (torch.randn(shape, generator=generator) for _ in range(3))
    given = (0.3 * mean, 3.0 * spread - 4.0, logit, BOUNDS, REACH)
    names = (*PARTS, *LIMITS)
    found = session.run(None, {name: each.numpy() for name, each in zip(names, given, strict=True)})
    expected = dict(zip(summaries.outputs, summaries(*given), strict=True))
    for name, values in zip(summaries.outputs, found, strict=True):
        assert values.shape == tuple(expected[name].shape)
        if "central" not in name:  # which may be at another of peaks of the same height
            np.testing.assert_allclose(
                values, expected[name].numpy(), rtol=1e-4, atol=2e-6, err_msg=name
            )
    central = dict(zip(summaries.outputs, found, strict=True))["central"]
    np.testing.assert_allclose(
        np.median(np.abs(central - expected["central"].numpy())), 0, atol=1e-4
    )


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_the_file_names_no_place_of_the_machine_it_was_made_on(file):
    assert b".py" not in file.read_bytes()
    model = onnx.load(file)
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
