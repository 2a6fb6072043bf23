"""Mergeable statistics of streamed rows: histograms, moments, medians, widths, fits."""
