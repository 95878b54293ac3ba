"""Measures what attackers learn from a release. Start at `pipeline`."""
