"""Recorded evidence against a policy. No torch."""
