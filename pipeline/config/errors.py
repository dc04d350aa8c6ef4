"""The error that our commands show as one line."""


class PipelineError(Exception):
    """A failure that the user can fix; its message says how."""
