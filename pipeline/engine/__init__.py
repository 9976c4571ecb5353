"""Runs jobs on Dask workers and remembers which are done."""
