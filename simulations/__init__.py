"""Virtual hospitals on one machine, over the very same ClientApp and ServerApp."""
