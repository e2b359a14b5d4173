"""Where replicas run: the driver contract and its implementations."""
