"""The simulated sample: features, response and their exact conditional density."""
