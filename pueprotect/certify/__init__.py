"""How much can still be learnt, with a bound. Start at `pipeline`."""
