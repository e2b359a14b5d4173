"""What we know of Triton: launch arguments, health, statistics, the embedded binary."""
