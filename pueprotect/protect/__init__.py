"""A folder of pictures becomes a release. Start at `pipeline`."""
