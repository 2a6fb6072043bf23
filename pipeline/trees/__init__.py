"""Boosted trees for quantiles: the baseline that everyone asks for."""
