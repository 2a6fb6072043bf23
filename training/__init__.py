"""Networks: how they are trained with Ray Train and exported to ONNX; no Dask."""
