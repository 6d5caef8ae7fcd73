"""The pure core: no clock, no randomness, no input or output."""
