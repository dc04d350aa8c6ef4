"""A picture to predict."""

from __future__ import annotations

from typing import NamedTuple


class Picture(NamedTuple):
    """An image file; `draft`: of a digit that is still being drawn."""

    content: bytes
    draft: bool = False
