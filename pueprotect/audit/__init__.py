"""What attackers get from a release. Start at `pipeline`."""
