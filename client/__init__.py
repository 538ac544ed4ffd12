"""The hospital's side: the only code that may open a scan."""

from shared import silence as silence  # nothing that is imported after this calls home
from shared import transport as transport  # before anything loads gRPC
