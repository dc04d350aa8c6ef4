"""`python -m pipeline.search`."""

from pipeline.config.startup import collect_rarely

collect_rarely()

from pipeline.search import cli  # noqa: E402 - imports MLflow

cli.run()
