"""Gaussian mixtures of l = log10 of the target: compiled functionals of blocks of rows."""
