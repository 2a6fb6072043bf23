"""A finished model applied to anybody's clusters: every cluster comes back, in its own format."""
