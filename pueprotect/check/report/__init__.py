"""What was found, in the forms that people and machines read; no logic, no torch."""
