"""The coordinator's side: rounds, the run store and the SuperLink. Never sees a scan."""
