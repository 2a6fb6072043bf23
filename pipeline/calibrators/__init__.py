"""What turns the rows of a split into a calibrated set: networks, tables, exact densities."""
