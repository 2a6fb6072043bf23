"""Rows that networks are trained on: resident in memory or streamed from Parquet."""
