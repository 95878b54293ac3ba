"""Runs the command line: `python -m pueprotect`."""

from pueprotect.cli import app

app(prog_name="pueprotect")
