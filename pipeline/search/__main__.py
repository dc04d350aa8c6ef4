"""`python -m pipeline.search`."""

from pipeline.search import command

command.door()
