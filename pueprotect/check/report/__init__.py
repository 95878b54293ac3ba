"""Draws the report page from recorded evidence. No torch."""
