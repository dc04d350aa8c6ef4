"""Run Git on the command line, in the true repository root."""

import subprocess

from pipeline.config import PipelineError, environment


class GitError(PipelineError):
    """Git failed; the message is its own."""


def git(*arguments: str) -> str:
    """Return what `git <arguments>` prints, without the last newline; GitError if it fails."""
    return content(*arguments).decode().rstrip("\n")


def content(*arguments: str) -> bytes:
    """Return what `git <arguments>` prints as bytes, for example the content of a file."""
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
