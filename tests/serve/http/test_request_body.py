import time

import pytest
from pydantic import ValidationError
from support.bundles import text

from serve.http import request_body
from serve.http.request_body import (
    ImageTooLargeError,
    InvalidError,
    MalformedError,
    UnsupportedTypeError,
)

FORM = b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n--b--\r\n'
FILE = b'; filename="a.png"'
FORM_TYPE = "multipart/form-data; boundary=b"
URLENCODED = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    "sent",
    [
        "aGVsbG8=",
        "data:image/png;base64,aGVsbG8=",
        "data:;base64,aGVsbG8=",
        "data:image/svg+xml;charset=utf-8;base64,aGVsbG8=",
        "aGVs\nbG8=\n",
        "  aGVs\r\n  bG8= ",
        "aGVsbG8",
        "data:image/png;base64,aGVsbG8",
    ],
)
def test_base64_plain_as_a_data_uri_in_lines_or_without_padding(sent):
    assert request_body.image_of_text(sent, 5) == b"hello"


@pytest.mark.parametrize("sent", ["/+/+/+8=", "_-_-_-8", "_-_-_-8=", "/ / / 8=", "/+/+\n/+8\n"])
def test_base64_safe_in_urls_or_with_spaces_for_plus(sent):
    assert request_body.image_of_text(sent, 5) == b"\xff\xef\xfe\xff\xef"


def test_lines_of_spaces_are_read_in_linear_time():
    started = time.thread_time()
    with pytest.raises(MalformedError):
        request_body.image_of_text(" " * 10**7 + "%", 10)
    assert time.thread_time() - started < 10  # a quadratic search would take hours


@pytest.mark.parametrize(
    "sent",
    ["a", "aGVsbG8=x", "%%%", "data:,aGVsbG8=", "data:image/png,x", "é", "😀"],
)
def test_what_is_no_base64_is_refused(sent):
    with pytest.raises(MalformedError):
        request_body.image_of_text(sent, 10)


def test_json_by_any_of_its_names_raw_bytes_and_forms():
    body = b'{"image": "aGVsbG8="}'
    for kind in ("application/json", "application/json; charset=utf-8", "application/x+json", ""):
        assert request_body.picture(body, kind, 10)[0] == b"hello"
    for kind in ("image/png", "IMAGE/anything", "application/octet-stream", ""):
        assert request_body.picture(b"hello", kind, 10)[0] == b"hello"
    for name, rest in ((b"file", FILE), (b"x", b'; filename="a"')):
        assert request_body.picture(FORM % (name, rest, b"hello"), FORM_TYPE, 10)[0] == b"hello"


def test_a_form_of_a_canvas_or_of_curl():
    uri, file = b"data:image/png;base64,aGVsbG8=", b"\x89hello"
    for name in (b"image", b"file"):
        for sent, expected in ((uri, b"hello"), (b"aGVsbG8", b"hello"), (file, file)):
            found = request_body.picture(FORM % (name, b"", sent), FORM_TYPE, 10)
            assert found == (expected, False, None)
        for sent in (uri, b"data%3Aimage%2Fpng%3Bbase64%2CaGVsbG8%3D", b"aGVsbG8"):
            found = request_body.picture(b"a=1&" + name + b"=" + sent, URLENCODED, 10)
            assert found == (b"hello", False, None)
    assert request_body.picture(file, URLENCODED, 10) == (file, False, None)
    assert request_body.picture(b'{"image": "aGVsbG8=", "draft": true}', URLENCODED, 10)[1]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "image/png"),
        (b"", FORM_TYPE),
        (b"nonsense", FORM_TYPE),
        (b"--b\r\nnonsense\r\n\r\n--b--", FORM_TYPE),
        (FORM % (b"other", b"", b"hello"), FORM_TYPE),
        (FORM % (b"file", FILE, b"hello"), "multipart/form-data"),
        (b"", URLENCODED),
        (b"hello", URLENCODED),
        (b"other=aGVsbG8", URLENCODED),
        (b"image=aGVsbG8&image=aGVsbG8", URLENCODED),
        (b"image=%FF", URLENCODED),
        (b"image=aGVsbG8" + 16 * b"&a=1", URLENCODED),
    ],
)
def test_damaged_bodies_are_refused(body, kind):
    with pytest.raises(MalformedError):
        request_body.picture(body, kind, 10)


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "nonsense"])
def test_other_types_are_refused(kind):
    with pytest.raises(UnsupportedTypeError, match="send JSON"):
        request_body.picture(b"hello", kind, 10)
    with pytest.raises(UnsupportedTypeError, match="send application/json"):
        request_body.check_json(kind)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"image": 3}', b'{"image": null}', b"[" * 10**5])
def test_other_json_is_refused(body):
    with pytest.raises(ValidationError):
        request_body.picture(body, "application/json", 10)


def test_large_files_are_refused_however_they_come():
    for body, kind in (
        (b'{"image": "aGVsbG8="}', "application/json"),
        (b"hello", "image/png"),
        (FORM % (b"file", FILE, b"hello"), FORM_TYPE),
    ):
        with pytest.raises(ImageTooLargeError):
            request_body.picture(body, kind, 4)


def cpu_seconds(body):
    """CPU time until the form is refused: the least of three, for others use the machine too."""
    times = []
    for _ in range(3):
        started = time.thread_time()
        with pytest.raises(MalformedError):
            request_body.picture(body, FORM_TYPE, 10)
        times.append(time.thread_time() - started)
    return min(times)


@pytest.mark.parametrize("part", [b"--b\r\nA:b\r\n\r\n\r\n", b"A: ", b"A", b"A: b\r\n"])
def test_a_form_of_endless_parts_or_headers_is_refused_as_it_begins(part):
    begin = b"" if part.startswith(b"--b") else b"--b\r\n"
    few, many = (begin + part * (size // len(part)) for size in (70_000, 7_000_000))
    assert cpu_seconds(many) < 10 * cpu_seconds(few) + 0.1


def test_a_form_may_have_16_parts():
    fifteen = 15 * b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'
    file = FORM % (b"file", FILE, b"hello")
    assert request_body.picture(fifteen + file, FORM_TYPE, 10)[0] == b"hello"
    with pytest.raises(MalformedError, match="16 parts"):
        request_body.picture(fifteen + fifteen + file, FORM_TYPE, 10)


def test_many_have_their_faults_in_their_places():
    body = f'{{"images": ["{text(b"a")}", "%", "{text(b"hello")}"]}}'.encode()
    (one, two, three), _ = request_body.images(body, 3, 4)
    assert one == b"a"
    assert isinstance(two, MalformedError)
    assert isinstance(three, ImageTooLargeError)
    with pytest.raises(InvalidError):
        request_body.images(body, 2, 4)
