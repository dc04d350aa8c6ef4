"""Entry point of `python -m pipeline.new_data`."""

from pipeline.config import cli
from pipeline.new_data.command import main

cli.run(main)
