"""Tags for clusters that no regression can learn: labels, scores, rates and what is left."""
