"""Command-line client of a running service: `python -m serve.client picture.png …`."""
