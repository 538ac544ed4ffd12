"""Virtual hospitals on one machine, over the very same ClientApp and ServerApp."""

from shared import silence as silence  # nothing that is imported after this calls home
