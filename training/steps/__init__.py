"""Gradients of one batch: products, noise, and what lies between them."""
