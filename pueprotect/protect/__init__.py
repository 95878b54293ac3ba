"""Turns a folder of pictures into a release. Start at `pipeline`."""
