"""Topo-cluster data from ROOT files to calibrated Parquet and figures; no torch, no Ray."""
