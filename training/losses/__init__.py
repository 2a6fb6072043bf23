"""Losses of densities and of points, with their gradients."""
