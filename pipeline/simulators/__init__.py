"""Simulators: samples whose truth, and where possible whose exact density, is known."""
