"""A corpus of inputs made to hurt: (name, path, body, headers), several hundred of them."""

import io
import json
import random
import struct
import zlib

from PIL import Image

from support.bundles import picture, text

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
JSON = {"content-type": "application/json"}
V2 = "/v2/models/mnist-classifier/infer"


def png_chunk(kind, content, checksum=None):
    crc = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png(width, height, depth=8, colour=0, data=b"", extra=b""):
    head = struct.pack(">IIBBBBB", width & 0xFFFFFFFF, height & 0xFFFFFFFF, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", head)
        + extra
        + png_chunk(b"IDAT", zlib.compress(data, 9))
        + png_chunk(b"IEND", b"")
    )


def bombs():
    yield "png-88-megapixels", png(9400, 9400, data=b"\0" * (9401 * 9400))
    for width, height in ((2**31 - 1, 2**31 - 1), (2**32 - 1, 1), (1, 2**32 - 1), (0, 0), (0, 5)):
        yield f"png-declares-{width}x{height}", png(width, height)
    for depth, colour in ((3, 0), (8, 1), (16, 3), (255, 255), (0, 0)):
        yield f"png-depth-{depth}-colour-{colour}", png(28, 28, depth, colour)
    yield "png-without-data", png(28, 28)
    yield "png-data-bomb", png(28, 28, data=b"\0" * 50_000_000)
    for kind in (b"zTXt", b"iTXt", b"iCCP"):
        bomb = b"a\0\0" + (b"\0\0\0" if kind == b"iTXt" else b"") + zlib.compress(b"a" * 30_000_000)
        yield f"png-{kind.decode()}-bomb", png(28, 28, extra=png_chunk(kind, bomb))
    yield "png-wrong-checksum", png(28, 28, extra=png_chunk(b"gAMA", b"\0" * 4, 1))
    yield "png-endless-chunk", b"\x89PNG\r\n\x1a\n\x80\0\0\0IHDR" + b"\0" * 99
    for file_format, limit in (("GIF", 6000), ("WEBP", 6000), ("JPEG", 6000), ("TIFF", 6000)):
        file = io.BytesIO()
        options = {"compression": "tiff_deflate"} if file_format == "TIFF" else {}
        Image.new("L", (limit, limit)).save(file, file_format, **options)
        yield f"{file_format}-36-megapixels", file.getvalue()
    bmp = struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, 2**30, 2**30, 1, 24, *[0] * 6)
    yield "bmp-declares-much", b"BM" + bmp
    side = b"\xff" * 4
    screen, frame = b"GIF89a" + side + b"\xf7\0\0" + bytes(768), b",\0\0\0\0" + side
    yield "gif-declares-much", screen + frame + b"\0\x08\0;"
    tiff = b"II*\0\x08\0\0\0"
    yield "tiff-endless", tiff + b"\xff" * 502
    yield "tiff-loops", tiff + struct.pack("<HHHII", 1, 256, 4, 1, 28) + b"\x08\0\0\0"


def damaged():
    """Files of each format, cut and corrupt; some may still show a digit."""
    chance = random.Random(4)  # noqa: S311 - the same corpus each time
    for file_format in FORMATS:
        whole = picture(64, file_format)
        for part in (1, 3, 5, 9, 12, 16, 24, 33, 50, 75):
            yield f"{file_format}-cut-to-{part}", whole[:part]
        for number in range(12):
            corrupt = bytearray(whole)
            for _ in range(1 + number * 3):
                corrupt[chance.randrange(len(corrupt))] = chance.randrange(256)
            yield f"{file_format}-corrupt-{number}", bytes(corrupt)


def others():
    yield from {
        "nothing": b"",
        "nul": b"\0",
        "nuls": b"\0" * 100_000,
        "text": b"hello",
        "html": b"<html><script>alert(1)</script>",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "xml-entities": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaa">]><a>&a;</a>',
        "pdf": b"%PDF-1.7\n",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id)(r)file",
        "zip": b"PK\x03\x04" + b"\0" * 100,
        "gzip": b"\x1f\x8b\x08" + b"\0" * 100,
        "elf": b"\x7fELF" + b"\0" * 100,
        "pickle": b"cos\nsystem\n(S'id'\ntR.",
        "ico": b"\0\0\1\0\1\0" + b"\0" * 50,
        "avif": b"\0\0\0\x1cftypavif" + b"\0" * 50,
        "heic": b"\0\0\0\x1cftypheic" + b"\0" * 50,
        "ppm": b"P6 99999 99999 255\n",
        "blp": b"BLP2" + b"\xff" * 200,
        "fli": b"\0\0\0\0\x12\xaf" + b"\xff" * 200,
        "psd": b"8BPS\0\1" + b"\xff" * 30,
        "jpeg-marker-only": b"\xff\xd8\xff",
        "jpeg-ends": b"\xff\xd8\xff\xd9",
        "webp-head": b"RIFF\xff\xff\xff\xffWEBPVP8 ",
        "blank-white": picture(ink=255),
        "blank-black": picture(ink=0, paper=0),
        "blank-large": picture(3000, ink=255),
    }.items()


def texts():
    yield from {
        "empty": "",
        "spaces": "   ",
        "one": "A",
        "unpadded": "aGVsbG8",
        "overpadded": "aGVsbG8====",
        "url-safe": "_-_-",
        "percent": "%%%%",
        "umlaut": "ä" * 100,
        "emoji": "😀" * 100,
        "nul": "\0" * 100,
        "path": "/etc/passwd",
        "url": "http://127.0.0.1:1/a.png",
        "file-url": "file:///etc/passwd",
        "data-plain": "data:text/plain,hello",
        "data-only": "data:",
        "data-comma": "data:,",
        "data-no-base64": "data:image/png,abc",
        "data-twice": "data:image/png;base64,data:image/png;base64,AAAA",
        "data-long": "data:" + "a" * 100_000 + ";base64,AAAA",
        "long": "A" * 1_000_000,
        "right-to-left": "\u202e" + "AAAA",
    }.items()


def bodies():
    yield from {
        "nothing": b"",
        "null": b"null",
        "number": b"1",
        "string": b'"image"',
        "list": b"[]",
        "open": b"{",
        "open-string": b'{"image": "',
        "trailing": b'{"image": "AAAA"} x',
        "no-image": b"{}",
        "image-null": b'{"image": null}',
        "image-number": b'{"image": 1}',
        "image-nan": b'{"image": NaN}',
        "image-infinity": b'{"image": Infinity}',
        "image-huge-number": b'{"image": ' + b"9" * 5000 + b"}",
        "image-bool": b'{"image": true}',
        "image-list": b'{"image": ["AAAA"]}',
        "image-object": b'{"image": {"$ref": "#"}}',
        "twice": b'{"image": "AAAA", "image": 1}',
        "deep-lists": b'{"image": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        "deep-objects": b'{"image": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        "many-keys": json.dumps({f"key{n}": n for n in range(100_000)}).encode(),
        "not-utf8": b'{"image": "\xff\xfe"}',
        "utf16": '{"image": "AAAA"}'.encode("utf-16"),
        "bom": b"\xef\xbb\xbf" + b'{"image": "AAAA"}',
        "surrogate": b'{"image": "\\ud800"}',
        "escape": b'{"image": "\\x"}',
        "control": b'{"image": "\x01"}',
        "single-quotes": b"{'image': 'AAAA'}",
        "comment": b'{"image": "AAAA" /* */}',
        "proto": b'{"__proto__": {"image": "AAAA"}, "constructor": 1}',
    }.items()


def tensors():
    good = {"name": "image", "shape": [1, 784], "datatype": "UINT8", "data": [0] * 784}
    for name, changed in {
        "empty": {},
        "no-name": {"name": None},
        "negative-shape": {"shape": [-1, 784]},
        "huge-shape": {"shape": [10**18, 784]},
        "float-shape": {"shape": [1.5, 784]},
        "deep-data": {"data": json.loads("[" * 900 + "]" * 900)},
        "words": {"data": ["a"] * 784},
        "mixed": {"data": [0] * 783 + ["a"]},
        "negative": {"data": [-1] * 784},
        "large": {"data": [10**400] * 784},
        "ragged": {"data": [[0] * 28] * 27 + [[0] * 27]},
        "objects": {"data": [{"a": 1}] * 784},
        "long-word": {"data": ["x" * 150_000] + ["a"] * 783},
        "long-word-of-many": {"data": ["x" * 10**6] + ["a"] * 500_000},
        "long-word-nested": {"data": [["x" * 150_000] + ["a"] * 783]},
        "word-among-lists": {"data": [[0] * 784, "x" * 784]},
        "deeper-than-any": {"data": [[[[[0]]]]] * 784},
        "empty-lists": {"data": [[]] * 20_000},
        "type": {"datatype": "BYTES"},
        "nan": {"datatype": "FP32", "data": [float("nan")] * 784},
    }.items():
        yield name, json.dumps({"inputs": [{**good, **changed}]}).encode()
    yield "two-inputs", json.dumps({"inputs": [good, good]}).encode()
    yield "unknown-output", json.dumps({"inputs": [good], "outputs": [{"name": "x"}]}).encode()


KINDS = [
    *("text/plain", "image", "/", "", "application/json", "multipart/form-data", "*/*"),
    *("multipart/form-data; boundary=", "multipart/form-data; boundary=" + "b" * 5000),
    *("application/x-www-form-urlencoded", "application/xml", "a" * 8000, "image/png;" * 500),
    *('multipart/form-data; boundary="\\"', "application/json; charset=utf-7"),
]


def headers():
    good = picture()
    for number, kind in enumerate(KINDS):
        read = kind == "" or "image" in kind or "urlencoded" in kind  # whatever it is
        content = b"junk" if read else good
        yield f"type-{number}", "/predict", content, {"content-type": kind}
    for version in ("x" * 5000, "../../etc", "%00", "-1", "1e9", "1' or '1'='1"):
        name = f"version-{version[:8]}"
        yield name, "/predict", good, {"content-type": "image/png", "x-model-version": version}


def corpus():
    """Every input as (name, path, body, headers)."""
    yield from pictures()
    yield from documents()
    yield from forms()
    yield from headers()


def pictures():
    raw = {"content-type": "image/png"}
    files = [*bombs(), *damaged(), *others()]
    for name, content in files:
        yield f"raw-{name}", "/predict", content, raw
    for name, content in files[::3]:
        if len(content) < 200_000:
            body = json.dumps({"image": text(content)}).encode()
            yield f"json-{name}", "/predict", body, JSON
    for size in (8, 40):
        yield f"megabytes-{size}", "/predict", b"\x89PNG" * (size << 18), raw
        body = b'{"image": "' + b"A" * (size << 20) + b'"}'
        yield f"json-megabytes-{size}", "/predict", body, JSON


def documents():
    for name, value in texts():
        yield f"text-{name}", "/predict", json.dumps({"image": value}).encode(), JSON
    for name, content in bodies():
        for path in ("/predict", "/predict/batch", "/feedback", V2):
            yield f"body-{path}-{name}", path, content, JSON
    for name, content in tensors():
        yield f"tensor-{name}", V2, content, JSON
    for count in (0, 257, 5000):
        body = json.dumps({"images": ["AAAA"] * count}).encode()
        yield f"batch-of-{count}", "/predict/batch", body, JSON


def forms():
    kind = {"content-type": "multipart/form-data; boundary=b"}
    head = b'Content-Disposition: form-data; name="file"'
    bodies = {
        **{f"{n}": b"--b\r\n" * n + head + b"\r\n" * n for n in range(10)},
        "many-headers": b"--b\r\n" + b"A: b\r\n" * 20_000 + b"\r\nx\r\n--b--",
        "many-parts": (b"--b\r\n" + head + b'; filename="a"\r\n\r\nx\r\n') * 5000 + b"--b--",
        "half-a-million-parts": b"--b\r\nA:b\r\n\r\n\r\n" * 490_000 + b"--b--",
    }
    for name, body in bodies.items():
        yield f"form-{name}", "/predict", body, kind


# A corrupt file may still hold a picture of a digit, and is then read.
MAY_BE_READ = ("corrupt", "cut", "wrong-checksum", "-bomb", "GIF-36", "WEBP-36")
