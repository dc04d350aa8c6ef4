"""What can be wrong with a picture; none of it knows of HTTP."""


class ImageError(Exception):
    """The picture cannot be used; the message says why, in words for whoever sent it."""


class NotAnImageError(ImageError):
    """The bytes are no image, or a damaged one."""


class UnsupportedImageError(ImageError):
    """An image in a format that is not decoded; the message names those that are."""


class TooManyPixelsError(ImageError):
    """The image declares more pixels than allowed; none was decoded."""


class NoDigitError(ImageError):
    """The picture is empty."""
