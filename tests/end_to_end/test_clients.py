"""Clients and kinds of files, each as its own documentation sends it, against the real service.

With RECORD=--record the answers go to docs/tables and docs/API_CLIENTS.md (`make tables`); else
they must be those that stand there.
"""

import asyncio
import base64
import gzip
import io
import json
import os
import shutil
import subprocess
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

import httpx2
import numpy as np
import pytest
import requests
import tritonclient.http
import tritonclient.http.aio
from PIL import Image
from support import generated_clients
from support.documents import document
from support.manifests import lacking
from support.service_process import ROOT, Process
from websockets.sync.client import connect

from docs.tools import recorded, tables
from pipeline.config import paths
from serve.decoding.decode import normalise_file

SEVEN = ROOT / "docs/images/seven.png"
CONTENT = SEVEN.read_bytes()
TEXT = base64.b64encode(CONTENT).decode()
URI = f"data:image/png;base64,{TEXT}"
PICTURE = Image.open(io.BytesIO(CONTENT)).convert("L")
COLUMNS = ["client or file", "how it is sent", "answer"]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    bundle = ROOT / paths.CHAMPION
    if not bundle.exists():
        pytest.fail("needs models/champion: make repro")
    service = Process(tmp_path_factory.mktemp("clients"), MODEL_URI=bundle, API_WORKERS=1)
    service.ready()
    yield service.url
    assert service.stop() == 0


def said(status, body):
    """An answer as the table has it: the digit, or the status with the reason."""
    found = json.loads(body)
    return str(found["prediction"]) if status == 200 else f"{status}: {found['detail']}"


def curl(*options):
    def ask(url):
        command = ["curl", "-s", "-w", "\n%{http_code}", "--noproxy", "*", *options]
        output = subprocess.check_output([*command, f"{url}/predict"], text=True, cwd=ROOT)
        body, _, status = output.rpartition("\n")
        return said(int(status), body)

    return ask


def by_urllib(content, **headers):
    def ask(url):
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"{url}/predict", content, given)  # noqa: S310 - http
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request) as response:
            return said(response.status, response.read())

    return ask


def by_requests(**sent):
    def ask(url):
        with requests.Session() as session:
            session.trust_env = False
            response = session.post(f"{url}/predict", **sent)
            return said(response.status_code, response.content)

    return ask


def by_httpx(**sent):
    def ask(url):
        with httpx2.Client(trust_env=False) as client:
            response = client.post(f"{url}/predict", **sent)
            return said(response.status_code, response.content)

    return ask


def node(options):
    """`fetch` with these options; `content` are the bytes of the file, `uri` is its data URI."""

    def ask(url):
        program = f"""
            import {{ readFile }} from "node:fs/promises";
            const content = await readFile({json.dumps(str(SEVEN))});
            const uri = `data:image/png;base64,${{content.toString("base64")}}`;
            function form(name, value) {{
              const fields = new FormData();
              fields.append(name, value);
              return fields;
            }}
            const response = await fetch("{url}/predict", {{ method: "POST", {options} }});
            console.log(JSON.stringify([response.status, await response.text()]));
        """
        command = ["node", "--input-type=module", "--eval", program]
        return said(*json.loads(subprocess.check_output(command)))

    return ask


def java(url):
    if not shutil.which("java"):
        pytest.skip("needs Java, a language that `make system` does not install")
    blocks = document("docs/API_CLIENTS.md").blocks()
    (program,) = (block.code for block in blocks if block.language == "java")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "Predict.java")
        file.write_text(program.replace("http://127.0.0.1:8000", url))
        return said(200, subprocess.check_output(["java", file], cwd=ROOT))


def socket(message):
    def ask(url):
        with connect(url.replace("http", "ws") + "/predict/stream") as opened:
            opened.send(message)
            found = opened.recv()
            return said(json.loads(found).get("status", 200), found)

    return ask


def tensor(client, binary):
    pixels = normalise_file(CONTENT, max_pixels=PICTURE.width * PICTURE.height)
    given = client.InferInput("image", [1, 28, 28, 1], "UINT8")
    given.set_data_from_numpy(pixels.reshape(1, 28, 28, 1), binary_data=binary)
    return [given]


def triton(binary):
    def ask(url):
        client = tritonclient.http.InferenceServerClient(url.removeprefix("http://"))
        try:
            found = client.infer("mnist-classifier", tensor(tritonclient.http, binary))
        finally:
            client.close()
        return str(found.as_numpy("prediction")[0])

    return ask


def triton_async(binary):
    async def ask(url):
        aio = tritonclient.http.aio
        async with aio.InferenceServerClient(url.removeprefix("http://")) as client:
            found = await client.infer("mnist-classifier", tensor(aio, binary))
            return str(found.as_numpy("prediction")[0])

    return lambda url: asyncio.run(ask(url))


def kserve(way):
    def ask(url):
        python = ROOT / ".venv-kserve/bin/python"
        if not python.exists():
            lacking("needs KServe's client: make .venv-kserve/installed (its pins exclude ours)")
        with tempfile.NamedTemporaryFile(suffix=".npy") as pixels:
            np.save(pixels, normalise_file(CONTENT, max_pixels=PICTURE.width * PICTURE.height))
            pixels.flush()
            command = [python, ROOT / "tests/support/kserve_client.py", url, pixels.name, way]
            environment = os.environ | {"no_proxy": "127.0.0.1"}
            return subprocess.check_output(command, text=True, env=environment).split()[-1]

    return ask


def file(image, file_format="PNG", **options):
    content = io.BytesIO()
    image.save(content, file_format, **options)
    return by_httpx(content=content.getvalue(), headers={"Content-Type": f"image/{file_format}"})


def keyed(file_format):
    """The picture with its paper made transparent; the edges of the ink stay opaque."""
    return file(PICTURE, file_format, transparency=PICTURE.getpixel((0, 0)))


def frames(file_format):
    empty = Image.new("L", PICTURE.size, 255)
    return file(empty, file_format, save_all=True, append_images=[PICTURE])


PNG = {"Content-Type": "image/png"}
FORM = "application/x-www-form-urlencoded"
DEEP = Image.fromarray(np.asarray(PICTURE).astype(np.uint16) * 257)
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
WAYS = {
    ("curl", "`--data-binary @seven.png -H 'Content-Type: image/png'`"): curl(
        "--data-binary", f"@{SEVEN}", "-H", "Content-Type: image/png"
    ),
    ("curl", "`--data-binary @seven.png`, its default type"): curl("--data-binary", f"@{SEVEN}"),
    ("curl", "`-F file=@seven.png`"): curl("-F", f"file=@{SEVEN}"),
    ("curl", "`--data-urlencode image=BASE64`"): curl("--data-urlencode", f"image={TEXT}"),
    ("curl", "`-d image=BASE64`, a plus as it is"): curl("-d", f"image={TEXT}"),
    ("curl", '`-d \'{"image": "BASE64"}\'`, its default type'): curl(
        "-d", json.dumps({"image": TEXT})
    ),
    ("curl", "`-T seven.png -X POST`"): curl("-T", str(SEVEN), "-X", "POST"),
    ("urllib", "the bytes as `data`, its default type"): by_urllib(CONTENT),
    ("urllib", "`Content-Encoding: gzip`"): by_urllib(
        gzip.compress(CONTENT), **PNG, Content_Encoding="gzip"
    ),
    ("urllib", "`urlencode({'image': data URI})`"): by_urllib(
        urllib.parse.urlencode({"image": URI}).encode()
    ),
    ("requests", "`data=content`, without a type"): by_requests(data=CONTENT),
    ("requests", "`files={'file': content}`"): by_requests(files={"file": CONTENT}),
    ("requests", "`json={'image': URL-safe base64 without padding}`"): by_requests(
        json={"image": base64.urlsafe_b64encode(CONTENT).decode().rstrip("=")}
    ),
    ("httpx2", "`content=content`, without a type"): by_httpx(content=CONTENT),
    ("httpx2", "`files={'image': content}`"): by_httpx(files={"image": CONTENT}),
    ("httpx2", "`data={'image': data URI}`"): by_httpx(data={"image": URI}),
    ("fetch in Node", "a `Blob` of the file"): node(
        'body: new Blob([content], { type: "image/png" })'
    ),
    ("fetch in Node", "`FormData` with the file"): node('body: form("file", new Blob([content]))'),
    ("fetch in Node", "`FormData` with a canvas's data URI"): node('body: form("image", uri)'),
    ("fetch in Node", "`URLSearchParams` with a data URI"): node(
        "body: new URLSearchParams({ image: uri })"
    ),
    ("fetch in Node", "JSON with a data URI"): node(
        'headers: { "Content-Type": "application/json" }, body: JSON.stringify({ image: uri })'
    ),
    ("HttpClient in Java", "the file, [as below](#java)"): java,
    ("websockets", "the bytes as a message"): socket(CONTENT),
    ("websockets", "JSON with a data URI"): socket(json.dumps({"image": URI})),
    ("tritonclient", "binary, its default"): triton(binary=True),
    ("tritonclient", "JSON"): triton(binary=False),
    ("tritonclient, asynchronous", "binary, its default"): triton_async(binary=True),
    ("tritonclient, asynchronous", "JSON"): triton_async(binary=False),
    ("kserve, asynchronous", "binary, its default"): kserve("binary"),
    ("kserve, asynchronous", "JSON"): kserve("json"),
    ("openapi-python-client", "the file, [as below](#python)"): generated_clients.python,
    ("openapi-typescript", "base64 in JSON, [as below](#typescript)"): generated_clients.typescript,
    ("AVIF", "the file"): file(PICTURE.convert("RGB"), "AVIF"),
    ("BMP", "the file"): file(PICTURE, "BMP"),
    ("GIF", "the file"): file(PICTURE, "GIF"),
    ("GIF", "its first frame is blank"): frames("GIF"),
    ("GIF", "its paper is transparent"): keyed("GIF"),
    ("JPEG", "progressive"): file(PICTURE, "JPEG", progressive=True),
    ("JPEG", "CMYK"): file(PICTURE.convert("CMYK"), "JPEG"),
    ("PNG", "16 bits"): file(DEEP),
    ("PNG", "a palette of 8 colours"): file(PICTURE.convert("RGB").quantize(8)),
    ("PNG", "its paper is transparent (tRNS)"): keyed("PNG"),
    ("PNG", "animated, its first frame is blank"): frames("PNG"),
    ("TIFF", "LZW"): file(PICTURE, "TIFF", compression="tiff_lzw"),
    ("WebP", "the file"): file(PICTURE, "WEBP"),
    ("WebP", "animated, its first frame is blank"): frames("WEBP"),
    ("HEIC", "the file"): by_httpx(content=HEIC, headers={"Content-Type": "image/heic"}),
    ("no picture", "`data=b'hello'`"): by_httpx(content=b"hello", headers=PNG),
    ("any", "`Content-Encoding: br`"): by_httpx(
        content=CONTENT, headers=PNG | {"Content-Encoding": "br"}
    ),
    ("any", "`Content-Type: text/plain`"): by_httpx(
        content=TEXT.encode(), headers={"Content-Type": "text/plain"}
    ),
}


@pytest.fixture(scope="module")
def rows():
    """What was found, in the end for the docs."""
    found = []
    yield found
    if os.environ.get("RECORD") and len(found) == len(WAYS):
        command = "RECORD=--record python -m pytest tests/end_to_end/test_clients.py"
        tables.write("clients", tables.Table(command, recorded.machine(), COLUMNS, found))


@pytest.mark.slow
@pytest.mark.system("curl", "curl")
@pytest.mark.system("node", "nodejs")
@pytest.mark.system("npm", "npm")
@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_each_is_answered_as_the_table_says(url, rows, way):
    rows.append([*way, WAYS[way](url)])
    if not os.environ.get("RECORD"):
        assert rows[-1] in tables.read("clients").rows


def test_the_table_has_these_ways():
    assert [tuple(row[:2]) for row in tables.read("clients").rows] == list(WAYS)
