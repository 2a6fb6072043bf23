"""Hashes of everything that a study of all kinds of models writes."""
