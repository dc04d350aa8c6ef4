"""The command-line client against the service as a process, and against services that fail."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest
from support.bundles import COLOURS, colour_picture, picture
from support.processes import python
from support.service_process import ROOT, Process, until
from support.web_server import Handler, serving

from serve.client import pictures
from serve.client.results import Terminal, to_file
from serve.client.service import ClientError, Limits, Service


@pytest.fixture(scope="module")
def service(made, tmp_path_factory):
    given = {"API_KEYS": "secret", "MAX_BATCH": 5, "MAX_IMAGE_BYTES": 4000, "API_WORKERS": 1}
    process = Process(tmp_path_factory.mktemp("client"), MODEL_URI=made[3], **given)
    process.ready()
    yield process
    process.stop()


@pytest.fixture
def ask(service, tmp_path):
    """Runs the client in a folder of its own."""

    def run(*arguments, key="secret", url=None, env=None, **options):
        given = ["--url", url or service.url, *(["--api-key", key] if key else [])]
        variables = {**os.environ, "http_proxy": "http://127.0.0.1:1", **(env or {})}
        options = {"cwd": tmp_path, "env": variables, "text": False, **options}
        return python("-m", "serve.client", *given, *arguments, **options)

    return run


@pytest.fixture
def files(tmp_path):
    """One good picture, others below folders, and what is none."""
    (tmp_path / "scans" / "old").mkdir(parents=True)
    for name in ("a.png", "scans/b.png", "scans/old/c.PNG"):
        (tmp_path / name).write_bytes(picture())
    (tmp_path / "scans" / "notes.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.fixture
def colour_service(made, colours, tmp_path):
    models = f"mnist-classifier={made[3]},colours={colours}"
    running = Process(tmp_path, MODELS=models, API_WORKERS=1)
    running.ready()
    yield running
    running.stop()


def test_another_model_has_its_own_labels(colour_service, ask, tmp_path):
    for name in ("red", "white"):
        (tmp_path / f"{name}.png").write_bytes(colour_picture(COLOURS[name]))
    chosen = {"url": colour_service.url, "key": None}
    ran = ask("red.png", "white.png", "--model", "colours", **chosen)
    assert [line.split()[:2] for line in ran.stdout.decode().splitlines()] == [
        ["picture", "class"],
        ["red.png", "red"],
        ["white.png", "white"],
    ]
    for name in ("found.parquet", "found.csv"):
        ask("red.png", "white.png", "--model", "colours", "--out", name, **chosen)
        assert [row["prediction"] for row in rows(tmp_path / name)] == ["red", "white"]
    refused = ask("red.png", "--model", "birds", **chosen)
    assert refused.returncode == 1
    assert b"'birds' is not served" in refused.stderr


def test_it_prints_a_table(ask, files):
    ran = ask("a.png", "scans")
    assert ran.returncode == 0
    lines = ran.stdout.decode().splitlines()
    assert lines[0].split() == ["picture", "digit", "confidence"]
    assert [line.split()[:2] for line in lines[1:]] == [
        ["a.png", "3"],
        ["scans/b.png", "3"],
        ["scans/old/c.PNG", "3"],
    ]
    assert "unsure" in lines[1]  # the model of the tests always is
    assert ran.stderr == b""


def test_patterns_are_its_own_matter_where_no_shell_did_it(ask, files):
    ran = ask("--json", "scans/**/*.[pP]*")
    names = [json.loads(line)["file"] for line in ran.stdout.splitlines()]
    assert names == ["scans/b.png", "scans/old/c.PNG"]


def test_a_picture_from_standard_input(ask):
    ran = ask("--json", "-", input=picture())
    answer = json.loads(ran.stdout)
    assert ran.returncode == 0
    assert (answer["file"], answer["prediction"]) == ("-", 3)
    assert len(answer["probabilities"]) == 10


def test_what_fails_is_named_and_the_rest_is_read(ask, files):
    (files / "heavy.png").write_bytes(bytes(4001))
    wrong = ["missing.png", "scans/notes.txt", "empty", "*.gif", "heavy.png"]
    ran = ask(*wrong, "a.png")
    assert ran.returncode == 1
    lines = ran.stdout.decode().splitlines()[1:]
    assert [line.split()[0] for line in lines] == [*wrong, "a.png"]
    assert "No such file" in lines[0]
    assert "not an image" in lines[1]
    assert "a folder without pictures" in lines[2]
    assert "4,001 bytes" in lines[4]
    assert lines[5].split()[1] == "3"
    assert ran.stderr.decode() == "5 of 6 could not be read\n"
    found = [json.loads(line) for line in ask("--json", *wrong).stdout.splitlines()]
    assert all(answer["detail"] for answer in found)


def test_a_folder_may_have_a_pictures_name(ask, files):
    (files / "scans" / "x.png").mkdir()
    (files / "scans" / "x.png" / "d.png").write_bytes(picture())
    names = [json.loads(line)["file"] for line in ask("--json", "scans").stdout.splitlines()]
    assert names == ["scans/b.png", "scans/old/c.PNG", "scans/x.png/d.png"]


def test_what_is_nearly_certain_is_not_called_certain(capsys):
    sure = {"prediction": 3, "confidence": 0.99957, "uncertain": False}
    Terminal(5, range(10), as_json=False).add("a.png", sure)
    assert "> 99.9%" in capsys.readouterr().out


def rows(file):
    """What a file of results has, as texts."""
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in file.read_text().splitlines()]
    if file.suffix == ".csv":
        return list(csv.DictReader(file.read_text().splitlines()))
    return pyarrow.parquet.read_table(io.BytesIO(file.read_bytes())).to_pylist()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_file_of_results_is_continued(ask, files, suffix):
    file = files / f"results{suffix}"
    first = ask("--out", file.name, "a.png", "scans/notes.txt")
    assert first.returncode == 1
    assert first.stdout.decode() == f"1 of 2 were read into {file.name}\n"
    again = ask("--out", file.name, "a.png", "scans/notes.txt", "scans")
    assert again.returncode == 0
    assert again.stdout.decode().endswith(", 2 had been before\n")
    found = {row["file"]: row for row in rows(file)}
    assert list(found) == ["a.png", "scans/notes.txt", "scans/b.png", "scans/old/c.PNG"]
    assert int(found["a.png"]["prediction"]) == 3
    assert float(found["a.png"]["confidence"]) > 0.5
    assert "not an image" in found["scans/notes.txt"]["detail"]
    assert {path.name for path in files.iterdir()} == {"a.png", "scans", "empty", file.name}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_name_that_is_not_utf_8_is_escaped_and_known_again(ask, files, suffix):
    try:
        (files / os.fsdecode(b"\xe9.png")).write_bytes(picture())
    except OSError:
        pytest.skip("this file system takes no name that is not UTF-8")
    out = os.fsdecode(b"\xe8") + suffix
    strict = {"env": {"PYTHONIOENCODING": "utf-8:strict"}}  # as a locale other than C has it
    for arguments in (["--json"], []):
        assert b"\\xe9.png" in ask(*arguments, ".", **strict).stdout
    first = ask("--out", out, ".", **strict)
    assert (first.returncode, first.stderr) == (0, b"")
    again = ask("--out", out, ".", **strict)
    assert again.stdout.decode().endswith(f" into \\xe8{suffix}, 4 had been before\n")
    names = [row["file"] for row in rows(files / out)]
    assert names == ["a.png", "scans/b.png", "scans/old/c.PNG", "\\xe9.png"]


def parquet():
    with io.BytesIO() as file:
        pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), file)
        return file.getvalue()


@pytest.mark.parametrize("content", [b"-\n", b"a,b\n1,2\n", b"[1]\n", b"PAR1", parquet()])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_another_file_is_not_written_over(tmp_path, suffix, content):
    file = tmp_path / f"mine{suffix}"
    file.write_bytes(content)
    with pytest.raises(ClientError, match="name another"):
        to_file(file, range(10))
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    ("name", "fault"), [("a.txt", "must end in"), ("none/a.csv", "No such"), ("b.csv", "directory")]
)
def test_a_file_that_cannot_be_written(tmp_path, name, fault):
    (tmp_path / "b.csv").mkdir()
    with pytest.raises(ClientError, match=fault):
        to_file(tmp_path / name, range(10))


MANY = 1200


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_many_pictures_and_a_kill_between(service, ask, tmp_path, suffix):
    kinds = ["BMP", "JPEG", "WEBP", "GIF", "PNG"]
    samples = [picture(28 + 8 * n, kind) for n, kind in enumerate(kinds)]
    (tmp_path / "many").mkdir()
    for number in range(MANY):
        broken = number % 40 == 7
        content = b"no picture" if broken else samples[number % len(samples)]
        (tmp_path / "many" / f"{number:04}.png").write_bytes(content)
    file = tmp_path / f"results{suffix}"
    written = file if suffix == ".csv" else file.with_name(f"{file.name}.jsonl")
    command = [sys.executable, "-m", "serve.client", "--url", service.url, "--api-key", "secret"]
    killed = subprocess.Popen(
        [*command, "--out", str(file), str(tmp_path / "many")], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    until(lambda: written.exists() and written.read_bytes().count(b"\n") > 300, service)
    killed.kill()
    killed.wait()
    before = written.read_bytes().count(b"\n") - (suffix == ".csv")
    assert before < MANY
    ran = ask("--out", file.name, str(tmp_path / "many"))
    assert f", {before:,} had been before" in ran.stdout.decode()
    found = rows(file)
    assert len({row["file"] for row in found}) == len(found) == MANY
    wrong = [row for row in found if row["detail"]]
    assert len(wrong) == MANY // 40
    assert {row["detail"] for row in wrong} == {"the bytes are not an image"}
    assert all(int(row["prediction"]) == 3 for row in found if not row["detail"])


def test_pictures_that_are_too_large_together_are_sent_alone(made, start, tmp_path):
    service = start(MAX_IMAGE_PIXELS=400_000)
    for number in range(12):
        (tmp_path / f"{number}.png").write_bytes(picture(600))
    names = pictures.files([str(tmp_path)])
    with Service(service.url) as client:
        answers = list(pictures.ask(client, names, client.limits(), parallel=3))
    assert [answer.get("prediction") for _, answer in answers] == [3] * 12


def test_more_pictures_than_a_request_may_have(ask, tmp_path):
    names = [f"{number:02}.png" for number in range(12)]
    for name in names:
        (tmp_path / name).write_bytes(picture())
    ran = ask("--json", ".")
    assert [json.loads(line)["file"] for line in ran.stdout.splitlines()] == names


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"key": ""}, "401"),
        ({"key": "wrong"}, "401"),
        ({"key": "schlüssel"}, "API key"),
        *(({"url": u}, u) for u in ("http://127.0.0.1:1", "ftp://127.0.0.1", "nonsense")),
    ],
)
def test_what_cannot_be_asked_is_an_error_of_one_line(ask, files, given, said):
    ran = ask("a.png", **given)
    assert ran.returncode == 1
    assert re.fullmatch(rf"error: .*{re.escape(said)}.*\n", ran.stderr.decode())


def test_who_reads_may_stop_reading(ask, files, service):
    command = f"{sys.executable} -m serve.client --url {service.url} --api-key secret"
    piped = ["bash", "-c", f"{command} {'a.png ' * 200} | head -1"]
    given = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(piped, cwd=files, env=given, capture_output=True, timeout=60)
    assert len(ran.stdout.splitlines()) == 1
    assert ran.stderr == b""


@pytest.fixture
def failing():
    """A service that answers as told, one answer after the other: status, headers, body."""
    told = []

    class Failing(Handler):
        def respond(self):
            status, headers, body = told.pop(0)
            self.answer(status, body, **headers)

    with serving(Failing) as server:

        def begin(*answers):
            told[:] = answers
            return Service(f"{server.url}/")

        yield begin


GOOD = json.dumps({"limits": {"max_batch": 2, "max_image_bytes": 9}}).encode()
BUSY = (503, {"Retry_After": "0"}, b'{"detail": "too busy"}')


def test_it_waits_where_that_helps(failing):
    limited = (429, {"Retry_After": "0"}, b'{"detail": "too many"}')
    assert failing(BUSY, limited, (200, {}, GOOD)).limits() == (2, 9)


def test_it_does_not_wait_for_ever(failing):
    with pytest.raises(ClientError, match="503: too busy"):
        failing(*[BUSY] * 5).limits()


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}, b"<html>"),
        (200, {}, b"[]"),
        (200, {}, b"{}"),
        (404, {}, b'{"detail": "Not Found"}'),
        (500, {}, b"oops"),
    ],
)
def test_another_service(failing, answer):
    with pytest.raises(ClientError):
        failing(answer).limits()


class Counted(Service):
    """Answers by itself, and counts the images of each request."""

    def __init__(self):
        super().__init__("http://127.0.0.1:1")
        self.asked = []

    def predict(self, contents):
        self.asked.append(len(contents))
        return [{"prediction": len(content)} for content in contents]


@pytest.mark.parametrize(
    ("sizes", "batch", "asked"),
    [
        ([300] * 7, 256, [3, 3, 1]),
        ([300, 900, 900, 300], 256, [1, 1, 1, 1]),
        ([300] * 5, 2, [2, 2, 1]),
        ([300, 1001, 300], 2, [1, 1]),  # one of them is too large to be sent
    ],
)
def test_a_request_holds_no_more_than_it_may(tmp_path, sizes, batch, asked):
    service, names = Counted(), [str(tmp_path / str(place)) for place in range(len(sizes))]
    for name, size in zip(names, sizes, strict=True):
        Path(name).write_bytes(bytes(size))
    answers = list(pictures.ask(service, names, Limits(batch, image_bytes=1000), parallel=1))
    assert [name for name, _ in answers] == names
    assert [answer.get("prediction", 1001) for _, answer in answers] == sizes
    assert service.asked == asked
