"""ROOT files of any layout: where their columns are, and rows of them as arrays."""
