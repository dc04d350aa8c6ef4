"""Image decoding: turn the bytes of an image file into a array of pixels."""
