"""Cryptography: the one door to the ``cryptography`` package, and the master key ring behind it."""
