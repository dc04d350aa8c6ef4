"""The version of the platform."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def package_version() -> str:
    """The platform's version; 0 where it is run without being installed."""
    try:
        return version("digit-platform")
    except PackageNotFoundError:
        return "0"
