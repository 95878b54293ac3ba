"""Networks, their training, and the machine they run on."""
