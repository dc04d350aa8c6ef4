"""Git by its command line, in the true repository root."""

from __future__ import annotations

import subprocess

from pipeline.config import PipelineError, environment


class GitError(PipelineError):
    """Git refused; the message is its own."""


def git(*arguments: str) -> str:
    """What `git <arguments>` prints, without the last newline.

    Raises:
        GitError: Git is missing, or says no.
    """
    return content(*arguments).decode().rstrip("\n")


def content(*arguments: str) -> bytes:
    """The same for bytes that are not ours, such as a file's."""
    try:
        done = subprocess.run(  # noqa: S603  a list, no shell
            ["git", *arguments],  # noqa: S607  the user's Git
            cwd=environment.root(),
            capture_output=True,
            check=True,
        )
    except FileNotFoundError:
        raise GitError("Git is not installed") from None
    except subprocess.CalledProcessError as error:
        raise GitError(error.stderr.decode().strip()) from None
    return done.stdout
