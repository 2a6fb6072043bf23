"""What every compiled kernel stands on: the compiler and special functions."""
