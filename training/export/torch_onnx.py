"""A torch module as one ONNX file, by torch's own exporter."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn


def export_onnx(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic_shapes: tuple[Any, ...],
) -> None:
    """Write the module as an ONNX file.

    Args:
        module: What is traced, in evaluation mode.
        example: Its arguments; sizes that may differ must neither be 1 nor equal one another.
        path: Where to; all weights are kept within the file.
        inputs: Names of the arguments.
        outputs: Names of what it returns.
        dynamic_shapes: For each argument its free axes, as `torch.export` takes them.
    """
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=dynamic_shapes,
            verbose=False,
        )
        if program is None:
            msg = "the ONNX exporter returned no program"
            raise RuntimeError(msg)
        # Stack traces in it name the files of the machine that it was made on.
        ClearMetadataAndDocStringPass()(program.model)
        program.save(path, external_data=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Hide what the exporter tells about its own implementation."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
