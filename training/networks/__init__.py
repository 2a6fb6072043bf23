"""Architectures of networks and their parameters."""
