"""Whether what comes in looks like what was evaluated: `python -m monitoring.drift`."""
