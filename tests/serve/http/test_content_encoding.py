"""Request bodies with a Content-Encoding."""

import gzip
import json

import pytest
from support.bundles import PNG, picture, text

JSON = {"content-type": "application/json"}
IMAGE = {
    "name": "image",
    "datatype": "UINT8",
    "shape": [1, 784],
    "data": [0] * 300 + [255] * 184 + [0] * 300,
}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", {"image": text(picture())}),
        ("/predict/batch", {"images": [text(picture())] * 3}),
        ("/feedback", {"request_id": "mine", "label": 3, "image": text(picture())}),
        ("/v2/models/mnist-classifier/infer", {"inputs": [IMAGE]}),
    ],
)
def test_each_path_reads_gzip(client, path, body):
    api, content = client(), gzip.compress(json.dumps(body).encode())
    for encoding in ("gzip", "GZIP", "x-gzip"):
        sent = api.post(path, content=content, headers=JSON | {"content-encoding": encoding})
        assert sent.status_code == 200, (encoding, sent.text)


def test_a_body_in_many_parts_is_decoded_whole(client):
    images = {"images": [text(picture(1000, "BMP"))] * 3}  # larger than a step of the decoder
    content = gzip.compress(json.dumps(images).encode())
    assert len(json.dumps(images)) > 3 * 2**20

    def parts():
        for start in range(0, len(content), 1000):
            yield content[start : start + 1000]

    headers = JSON | {"content-encoding": "gzip"}
    answer = client().post("/predict/batch", content=parts(), headers=headers).json()
    assert [one["prediction"] for one in answer["predictions"]] == [3, 3, 3]


def test_another_encoding_is_refused_and_the_error_names_what_is_read(client):
    api = client()
    for encoding in ("br", "deflate", "zstd", "gzip, gzip", "é"):
        headers = PNG | {"content-encoding": encoding.encode()}
        refused = api.post("/predict", content=picture(), headers=headers)
        assert refused.status_code == 415, encoding
        assert refused.headers["accept-encoding"] == "gzip"
        assert "send gzip" in refused.json()["detail"]


def test_what_is_not_one_gzip_stream_is_refused(client):
    api, whole, headers = client(), gzip.compress(picture()), PNG | {"content-encoding": "gzip"}
    for content in (picture(), b"", whole[:-1], whole + b"x", whole * 2):
        refused = api.post("/predict", content=content, headers=headers)
        assert refused.status_code == 400, content
        assert "gzip" in refused.json()["detail"]


def test_the_limits_are_of_the_decoded_bytes(client):
    api = client(max_image_bytes=100_000)
    headers = PNG | {"content-encoding": "gzip"}
    bomb = gzip.compress(bytes(300_000_000))
    assert len(bomb) < 400_000  # the path takes 100,000 * 4 / 3 + 65,536 bytes
    assert api.post("/predict", content=bomb[:190_000], headers=headers).status_code == 413
    one_image = api.post("/predict", content=gzip.compress(bytes(100_001)), headers=headers)
    assert (one_image.status_code, "100,001 bytes" in one_image.text) == (413, True)


def test_decoded_bytes_count_as_memory_and_are_given_back(client):
    api = client(max_body_memory=1_000_000)
    headers = PNG | {"content-encoding": "gzip"}
    for _ in range(5):  # each more than the half of it
        sent = api.post("/predict", content=gzip.compress(bytes(700_000)), headers=headers)
        assert sent.status_code == 400  # no picture
    assert "body_memory_bytes 0.0" in api.get("/metrics").text
