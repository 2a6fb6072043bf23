"""How uncertainties and scores depend on the size of the training sample."""
