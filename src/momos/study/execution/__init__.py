"""Runs jobs in processes or on a Ray cluster; knows nothing of cells."""
