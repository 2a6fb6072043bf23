"""Networks: how they are trained with Ray Train and exported to ONNX; no Dask."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as in `pipeline`, for what imports this first
