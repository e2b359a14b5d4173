"""Pure decisions and the data they are made of: no I/O, no clock, no randomness, no third party."""
