"""The coordinator's side: rounds, the run store and the SuperLink. Never sees a scan."""

from server import transport as transport  # before anything loads gRPC
from shared import silence as silence  # nothing that is imported after this calls home
