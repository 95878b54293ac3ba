"""Reads and writes a release on disk: the released folder and its private vault."""
