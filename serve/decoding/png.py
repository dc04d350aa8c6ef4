"""The parts of a PNG file, and its picture in strips.

Pillow decodes a file whole, at 4 bytes per pixel in colour: 256 MB for 64 megapixels. A large PNG
is unpacked here, some rows at a time, and Pillow gets those rows. That takes 16 MB, and as long.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from struct import unpack_from

import numpy as np
from PIL import Image

_START = 8  # of the first chunk, after the signature
_DEPTH, _COLOUR, _INTERLACE = 24, 25, 28  # places in the header

MODES = ("I;16", "LA", "RGB", "RGBA")  # of more than a byte per pixel
# Modes of 8 bits whose filters work on as many bytes, by kind of colour. Grey has 16 bits here.
_MODES = {0: "LA", 2: "RGB", 4: "LA", 6: "RGBA"}
_PIECE = 2**16  # bytes to unpack at once
_MAX_CHUNKS = 5_000  # before the picture; 2 ms


def size(content: bytes) -> tuple[int, int]:
    """Return the declared width and height."""
    width, height = unpack_from(">II", content, 16)
    return width, height


def is_plain(content: bytes) -> bool:
    """Return True if the rows of one picture follow each other: no interlacing, no animation."""
    if content[_INTERLACE]:
        return False
    for count, (kind, _, _) in enumerate(_chunks(content)):
        if kind == b"IDAT":
            return True
        if kind == b"acTL" or count == _MAX_CHUNKS:
            break
    return False


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each chunk, and where its content starts and ends."""
    place = _START
    while place + 8 <= len(content):
        length, kind = unpack_from(">I4s", content, place)
        yield kind, place + 8, place + 8 + length
        place += length + 12


class StripedPng(Image.Image):
    """A plain PNG of one of MODES, whose pixels are never in memory together.

    `crop` is all it does. Strips of its full width are cropped in order; the top one starts anew.
    """

    def __init__(self, content: bytes, header: Image.Image) -> None:
        super().__init__()
        self._content, self._size, self._mode = content, header.size, header.mode
        self.info = header.info.copy()
        for kind, start, end in _chunks(content):
            if kind == b"eXIf":  # Pillow finds it only when it loads the picture
                self.info["exif"] = b"Exif\0\0" + content[start:end]

    def crop(self, box: tuple[float, float, float, float] | None = None) -> Image.Image:
        """Return the strip with the next rows."""
        assert box
        top, bottom = int(box[1]), int(box[3])
        if not top:
            self._data, self._above = _Unpacked(self._content), b""
        strip = self._read(bottom - top)
        strip.info = self.info.copy()
        return strip

    def _read(self, rows: int) -> Image.Image:
        depth, colour = self._content[_DEPTH], self._content[_COLOUR]
        mode = _MODES[colour]
        deep_colour = depth == 16 and colour != 0
        length = self.width * len(mode) * (2 if deep_colour else 1)
        lines = np.frombuffer(self._data.read(rows * (1 + length)), np.uint8).reshape(rows, -1)
        if deep_colour:  # filters never mix the upper bytes with the lower, which Pillow drops too
            lines = np.hstack([lines[:, :1], lines[:, 1::2]])
        # The first row may be filtered by the one above, which comes unfiltered before it.
        above = bool(self._above)
        packed = zlib.compress(self._above + lines.tobytes(), 0)
        found = Image.frombytes(mode, (self.width, above + rows), packed, "zip", mode)
        strip = found.crop((0, int(above), self.width, above + rows))
        self._above = b"\0" + strip.crop((0, rows - 1, self.width, rows)).tobytes()
        if self._mode == "I;16":
            return Image.frombytes("I;16", strip.size, strip.tobytes(), "raw", "I;16B")
        return strip if self._mode == mode else strip.convert(self._mode)


class _Unpacked:
    """The data of all the IDAT chunks, unpacked as it is read."""

    def __init__(self, content: bytes) -> None:
        self._pieces = _pieces(content)
        self._stream = zlib.decompressobj()

    def read(self, size: int) -> bytes:
        """Return so many bytes; raise EOFError if there are fewer."""
        parts = []
        while size:
            packed = self._stream.unconsumed_tail or next(self._pieces, None)
            if packed is None:
                raise EOFError
            parts.append(self._stream.decompress(packed, size))
            size -= len(parts[-1])
        return b"".join(parts)


def _pieces(content: bytes) -> Iterator[memoryview]:
    with memoryview(content) as view:
        started = False
        for kind, start, end in _chunks(content):
            if kind == b"IDAT":
                started = True
                for place in range(start, end, _PIECE):
                    yield view[place : min(place + _PIECE, end)]
            elif started:
                return
