"""Topo-cluster data from ROOT files to calibrated Parquet and figures; no torch, no Ray."""

import os

# Else ONNX Runtime tells its makers of its use, through files in the home folder, once imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
