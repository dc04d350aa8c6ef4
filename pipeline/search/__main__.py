"""`python -m pipeline.search`."""

from pipeline.search import cli

cli.run()
