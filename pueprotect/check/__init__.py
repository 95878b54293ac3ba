"""Checks recorded evidence against a policy. No torch."""
