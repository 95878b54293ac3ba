"""Bounds how much can still be learnt from a release. Start at `pipeline`."""
