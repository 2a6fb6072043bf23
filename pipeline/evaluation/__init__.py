"""Evaluation of calibrated sets against the truth: one pass over the parts, merged with `+`."""
