"""Parse request bodies into image files: JSON, raw image bytes and forms."""

from __future__ import annotations

import binascii
import math
import re

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header

from serve.http.schemas import BatchRequest, PredictRequest

_DATA_URI = re.compile(r"data:[\w.+-]*/?[\w.+-]*(?:;[\w.+-]+=[^;,]*)*(;base64)?,", re.ASCII)
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


def check_json(content_type: str) -> None:
    """Raise UnsupportedTypeError unless the Content-Type is JSON or empty."""
    kind = _kind(content_type)
    if kind and not _is_json(kind):
        raise UnsupportedTypeError(f"cannot read {kind[:60]!r}: send application/json")


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _is_json(kind: str) -> bool:
    return kind.startswith("application/") and (kind[12:] == "json" or kind.endswith("+json"))


def picture(body: bytes, content_type: str, max_bytes: int) -> tuple[bytes, bool]:
    """Return the image file in the body, and True if it is a draft: still being drawn.

    Raises MalformedError, UnsupportedTypeError, ImageTooLargeError or pydantic.ValidationError.
    """
    kind = _kind(content_type) or ("application/json" if body[:1] == b"{" else "image/*")
    if _is_json(kind):
        request = PredictRequest.model_validate_json(body)
        return image_of_text(request.image, max_bytes), request.draft
    if kind == "multipart/form-data":
        body = _file(body, content_type)
    elif not kind.startswith("image/") and kind != "application/octet-stream":
        raise UnsupportedTypeError(f"cannot read {kind[:60]!r}: send {_WAYS}")
    if not body:
        raise MalformedError("the body is empty")
    return _limited(body, max_bytes), False


def images(body: bytes, most: int, max_bytes: int) -> list[bytes | Exception]:
    """Parse the body of a batch into image files; an invalid one gives its error in its place.

    Raises:
        InvalidError: more than `most` images.
        pydantic.ValidationError
    """
    texts = BatchRequest.model_validate_json(body).images
    if len(texts) > most:
        raise InvalidError(f"images: {len(texts)} are more than the {most} allowed")
    return [_image_or_error(text, max_bytes) for text in texts]


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
    try:  # with line breaks, as the command `base64` writes them
        return _limited(binascii.a2b_base64("".join(text.split()), strict_mode=True), max_bytes)
    except ValueError as error:
        raise MalformedError(f"not base64: {error}") from error


def _limited(content: bytes, max_bytes: int) -> bytes:
    if len(content) > max_bytes:
        raise ImageTooLargeError(
            f"the image has {len(content):,} bytes, more than the {max_bytes:,} allowed"
        )
    return content


def _file(body: bytes, content_type: str) -> bytes:
    """Return the content of the form's part `file`, or of its only file."""
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
    found = [part for part in parts if isinstance(part, File) or part.field_name == b"file"]
    if len(found) != 1:
        raise MalformedError(f"the form must have one file, named file; it has {len(found)}")
    (file,) = found
    if isinstance(file, Field):
        return file.value or b""
    file.file_object.seek(0)
    return file.file_object.read()
