"""Entry point of `python -m pipeline.search`."""

from pipeline.config.startup import start_program

start_program()

from pipeline.search import cli  # noqa: E402 - imports MLflow

cli.run()
