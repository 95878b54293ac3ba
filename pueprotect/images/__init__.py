"""Picture files in and out. No torch."""
