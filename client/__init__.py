"""The hospital's side: the only code that may open a scan."""
