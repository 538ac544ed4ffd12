"""Datasets: the only code that opens a scan."""
