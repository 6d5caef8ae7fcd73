"""The simulator compared with a second, independent emulator of AWS: ``make oracle``."""
