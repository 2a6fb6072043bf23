"""Topo-cluster data on their way from ROOT files to calibrated Parquet and figures; no torch, no Ray."""
