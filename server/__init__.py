"""The coordinator's side: rounds, the run store and the SuperLink. Never sees a scan."""

from shared import silence as silence  # nothing that is imported after this calls home
from shared import transport as transport  # before anything loads gRPC
