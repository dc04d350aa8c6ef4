"""Parse request bodies into image files: JSON, raw image bytes and forms."""

from __future__ import annotations

import binascii
import math
import re
from typing import NamedTuple
from urllib.parse import parse_qsl

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header
from starlette.requests import Request

from serve.http.schemas import BatchRequest, PredictRequest

_DATA_URI = re.compile(r"data:[\w.+-]*/?[\w.+-]*(?:;[\w.+-]+=[^;,]*)*(;base64)?,", re.ASCII)
# The URL-safe alphabet (RFC 4648, section 5), and the space that a form makes of a plus.
_STANDARD = str.maketrans("-_ ", "+/+")
# Media types of bodies that are an image file. The last is curl's default, whatever the body is.
_BYTES = ("application/octet-stream", "application/x-www-form-urlencoded")
_FIELDS = (b"file", b"image")  # of a form
MAX_FORM_PARTS = 16  # per form
_WAYS = 'JSON {"image": base64}, the image itself as image/png (or jpeg, webp, …), or a form'


class MalformedError(Exception):
    """The body is malformed; the message says where."""


class UnsupportedTypeError(Exception):
    """The body has an unsupported media type; the message names the supported ones."""


class ImageTooLargeError(Exception):
    """The image file has more bytes than MAX_IMAGE_BYTES."""


class InvalidError(Exception):
    """The request is well-formed JSON with an invalid value."""


class Picture(NamedTuple):
    """An image file, and what its request says of it in JSON.

    `draft`: it is still being drawn. `top_k`: how many of the best classes to name, if any.
    """

    content: bytes
    draft: bool = False
    top_k: int | None = None


async def read(request: Request) -> bytes:
    """Return the body; unlike `request.body()`, the request keeps nothing of it."""
    return b"".join([part async for part in request.stream()])


def check_json(content_type: str, also: str = "") -> None:
    """Raise UnsupportedTypeError unless the Content-Type is JSON, `also` or empty."""
    kind = _kind(content_type)
    if kind not in ("", also) and not _is_json(kind):
        raise UnsupportedTypeError(f"cannot read {kind[:60]!r}: send application/json")


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _is_json(kind: str) -> bool:
    return kind.startswith("application/") and (kind[12:] == "json" or kind.endswith("+json"))


def picture(body: bytes, content_type: str, max_bytes: int) -> Picture:
    """Return the image file in the body.

    Raises MalformedError, UnsupportedTypeError, ImageTooLargeError or pydantic.ValidationError.
    """
    kind = _kind(content_type) or ("application/json" if body[:1] == b"{" else "image/*")
    if _is_json(kind):
        request = PredictRequest.model_validate_json(body)
        return Picture(image_of_text(request.image, max_bytes), request.draft, request.top_k)
    if kind == "application/x-www-form-urlencoded" and _is_text(body):
        if body[:1] == b"{":
            return picture(body, "application/json", max_bytes)
        body, by_field = _field(body), True
    elif kind == "multipart/form-data":
        body, by_field = _part(body, content_type)
    elif kind.startswith("image/") or kind in _BYTES:
        by_field = False
    else:
        raise UnsupportedTypeError(f"cannot read {kind[:60]!r}: send {_WAYS}")
    if not body:
        raise MalformedError("the body is empty")
    if by_field and _is_text(body):
        return Picture(image_of_text(body.decode(), max_bytes))
    return Picture(_limited(body, max_bytes))


def images(body: bytes, most: int, max_bytes: int) -> tuple[list[bytes | Exception], int | None]:
    """Parse the body of a batch into image files, and its `top_k`.

    An invalid image gives its error in its place.

    Raises:
        InvalidError: more than `most` images.
        pydantic.ValidationError
    """
    asked = BatchRequest.model_validate_json(body)
    if len(asked.images) > most:
        raise InvalidError(f"images: {len(asked.images)} are more than the {most} allowed")
    return [_image_or_error(text, max_bytes) for text in asked.images], asked.top_k


def _image_or_error(text: str, max_bytes: int) -> bytes | Exception:
    try:
        return image_of_text(text, max_bytes)
    except (MalformedError, ImageTooLargeError) as error:
        return error


def image_of_text(text: str, max_bytes: int) -> bytes:
    """Decode base64 text, plain or a data URI; may raise MalformedError or ImageTooLargeError."""
    if text.startswith("data:"):
        found = _DATA_URI.match(text[:256])
        if not found or not found[1]:
            raise MalformedError("not a data URI in base64: data:image/png;base64,…")
        text = text[found.end() :]
    try:
        return _limited(binascii.a2b_base64(text, strict_mode=True), max_bytes)
    except ValueError:
        pass
    # With line breaks, as the command `base64` writes them, or without padding.
    text = "".join(map(str.strip, text.splitlines())).rstrip("=").translate(_STANDARD)
    try:
        padded = text + "=" * (-len(text) % 4)
        return _limited(binascii.a2b_base64(padded, strict_mode=True), max_bytes)
    except ValueError as error:
        raise MalformedError(f"not base64: {error}") from error


def _limited(content: bytes, max_bytes: int) -> bytes:
    if len(content) > max_bytes:
        raise ImageTooLargeError(
            f"the image has {len(content):,} bytes, more than the {max_bytes:,} allowed"
        )
    return content


def _part(body: bytes, content_type: str) -> tuple[bytes, bool]:
    """Return the content of the form's only file, or field `file` or `image`; True for a field."""
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise MalformedError("the form has no boundary in its Content-Type")
    parts: list[Field | File] = []

    def add(part: Field | File) -> None:
        if len(parts) == MAX_FORM_PARTS:
            raise MalformedError(f"the form has more than {MAX_FORM_PARTS} parts")
        parts.append(part)

    in_memory = {"MAX_MEMORY_FILE_SIZE": math.inf}
    try:
        parser = FormParser("multipart/form-data", add, add, boundary=boundary, config=in_memory)
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise MalformedError("the form is malformed") from error
    files = [part for part in parts if isinstance(part, File)]
    fields = [part for part in parts if isinstance(part, Field) and part.field_name in _FIELDS]
    found = len(files or fields)
    if found != 1:
        raise MalformedError(f"the form must have one file, or one field image; it has {found}")
    if not files:
        return fields[0].value or b"", True
    files[0].file_object.seek(0)
    return files[0].file_object.read(), False


def _field(body: bytes) -> bytes:
    """Return the content of a urlencoded form's field `file` or `image`."""
    try:
        fields = parse_qsl(body, max_num_fields=MAX_FORM_PARTS)
    except ValueError as error:
        raise MalformedError(f"the form has more than {MAX_FORM_PARTS} parts") from error
    found = [value for name, value in fields if name in _FIELDS]
    if len(found) != 1:
        raise MalformedError(
            f"the form must have one file, or one field image; it has {len(found)}"
        )
    return found[0]


def _is_text(content: bytes) -> bool:
    """Return whether it is text: no image file has ASCII alone."""
    return content.isascii() and b"\0" not in content
