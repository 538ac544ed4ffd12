"""What the coordinator and the hospitals must agree on. Imports neither side and touches no network."""
