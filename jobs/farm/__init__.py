"""Dask farms: processes of this machine, a farm that runs, or jobs of a batch system."""
