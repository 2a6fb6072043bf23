"""From ROOT files to a dataset: one pass that cuts, splits, writes parts and sums statistics."""
