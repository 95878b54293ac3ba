"""Reads and writes picture files. No torch."""
