"""Families of conditional densities: parameters, functionals and scores."""
