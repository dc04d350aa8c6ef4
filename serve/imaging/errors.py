"""Errors of pictures. They know nothing of HTTP."""


class ImageError(Exception):
    """The picture cannot be used; the message tells its sender why."""


class NotAnImageError(ImageError):
    """The bytes are not an image, or the image is damaged."""


class UnsupportedImageError(ImageError):
    """The image format is not supported; the message names the supported ones."""


class TooManyPixelsError(ImageError):
    """The image declares more pixels than allowed (a decompression bomb); none was decoded."""


class NoDigitError(ImageError):
    """The picture is empty, or holds nothing but noise and specks."""
