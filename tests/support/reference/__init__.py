"""Slow twins of what is compiled or written out by hand: the definitions, as they are stated."""
