"""What the coordinator and the hospitals must agree on. Imports neither side and touches no network."""

from shared import silence as silence  # nothing that is imported after this calls home
