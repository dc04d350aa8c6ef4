"""The repository in which DVC is to save experiments."""

from __future__ import annotations

from pipeline.config import PipelineError
from pipeline.storage import git


def require_experiments() -> None:
    """Refuse, before anything is computed, a repository in which DVC cannot save experiments."""
    try:
        git.git("rev-parse", "--verify", "HEAD")
    except git.GitError as error:
        raise PipelineError(
            f"DVC keeps experiments in Git, but this is no Git repository with a commit: {error}\n"
            "Without Git, train a run by its stage: python -m pipeline.train run=1"
        ) from None
    # DVC fetches an experiment from its temporary copy. Git refuses that here, and DVC ignores it.
    if git.git("rev-parse", "--is-shallow-repository") == "true":
        raise PipelineError(
            "this is a shallow clone, in which DVC saves no experiments: git fetch --unshallow"
        )
