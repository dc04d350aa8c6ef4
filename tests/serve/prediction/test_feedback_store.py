import base64
import io
import itertools
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from PIL import Image
from support.bundles import PNG, picture, text
from support.processes import python
from support.service_process import ROOT
from support.small_disk import SmallDisk

from serve.prediction.feedback_store import (
    NO_DIGIT,
    Entry,
    FeedbackBusyError,
    FeedbackFullError,
    FeedbackStore,
)
from serve.routes import feedback as route


def entry(**changed):
    given = {"request_id": "a", "label": 5, "prediction": 3, "model_version": "7"}
    return Entry(**{**given, **changed}, image=np.eye(28, dtype=np.uint8))


def test_one_row_per_request_and_the_last_label_counts(tmp_path):
    feedback = FeedbackStore(tmp_path / "state" / "feedback.db")
    assert feedback.add(entry())
    assert not feedback.add(entry())
    assert feedback.add(entry(label=6))
    assert feedback.add(entry(request_id="b"))
    kept = list(feedback.entries())
    assert sorted((one.request_id, one.label) for one in kept) == [("a", 6), ("b", 5)]
    assert all((one.image == np.eye(28)).all() for one in kept)
    assert feedback.find("a").model_version == "7"
    assert feedback.find("c") is None


def labels(path):
    """The labels of all entries, as another program reads them."""
    code = f"""
from pathlib import Path
from serve.prediction.feedback_store import FeedbackStore
print(*(entry.label for entry in FeedbackStore(Path({str(path)!r})).entries()))
"""
    return [int(label) for label in python("-c", code).stdout.split()]


def test_reading_leaves_no_trace(tmp_path):
    """Another user's log beside the file would keep the service from writing."""
    feedback = FeedbackStore(tmp_path / "feedback.db")
    feedback.add(entry())
    before = feedback._state()
    assert [one.request_id for one in feedback.entries()] == ["a"]
    assert feedback._state() == before
    assert [path.name for path in tmp_path.iterdir()] == ["feedback.db"]


@pytest.mark.parametrize("journal", ["delete", "wal"])  # the second of an older version
def test_what_a_service_at_work_has_not_moved_into_the_file_is_read_too(tmp_path, journal):
    feedback = FeedbackStore(tmp_path / "feedback.db")
    feedback.add(entry())
    with closing(sqlite3.connect(tmp_path / "feedback.db")) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE feedback SET label = 9")
        assert labels(tmp_path / "feedback.db") == [5], "not committed"
        connection.commit()
        names = {path.name for path in tmp_path.iterdir()}
        assert labels(tmp_path / "feedback.db") == [9]
        assert {path.name for path in tmp_path.iterdir()} == names
        connection.execute("UPDATE feedback SET label = 8")  # nobody holds it up
        connection.commit()


def test_reader_and_writer_do_not_disturb_each_other(tmp_path):
    feedback = FeedbackStore(tmp_path / "feedback.db")
    feedback.add(entry(request_id="0"))

    code = f"""
import sys
sys.path.insert(0, "tests")
from pathlib import Path
from support.feedback_entries import database, entry
database(Path({str(tmp_path)!r}) / "feedback.db", map(entry, range(1, 200)))
"""
    counts = []
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as writer:
        while writer.poll() is None:
            counts.append(len(feedback.entries()))
    assert writer.returncode == 0
    assert counts == sorted(counts)
    assert len(feedback.entries()) == 200


@pytest.fixture
def older(tmp_path):
    """A database of an older version: with a write-ahead log, and ids without their owner."""
    feedback = FeedbackStore(tmp_path / "feedback.db")
    feedback.add(entry())
    with closing(sqlite3.connect(tmp_path / "feedback.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    assert feedback._state()[:2] == (True, False)
    return feedback


def test_a_file_of_an_older_version_is_read_without_a_trace(older, tmp_path):
    before = older._state()
    assert [one.request_id for one in older.entries()] == ["a"]
    assert older._state() == before
    assert [path.name for path in tmp_path.iterdir()] == ["feedback.db"]


def test_a_file_of_an_older_version_is_written_on_also_while_it_is_in_use(older, tmp_path):
    with closing(sqlite3.connect(tmp_path / "feedback.db")) as connection:
        connection.execute("SELECT * FROM feedback").fetchall()
        assert older.add(entry(request_id="b", owner="me"))
        assert len(older.entries()) == 2
        assert older._state()[:2] == (True, True)
    assert older.add(entry(request_id="c", owner="me"))
    assert older._state()[:2] == (False, False)
    assert [one.request_id for one in older.entries()] == ["a", "b", "c"]
    assert older.find("a").label == 5


def test_a_file_of_an_older_version_that_never_rests_is_given_up(older, monkeypatch):
    feedback = older
    state, ticks = feedback._state(), itertools.count()
    monkeypatch.setattr(feedback, "_state", lambda: (*state[:3], next(ticks)))
    with pytest.raises(sqlite3.OperationalError, match="changes without a pause"):
        feedback.entries()


def refused(path, *enter):
    """The last line that a process prints which adds to the store behind `enter`."""
    code = f"""
from pathlib import Path
import numpy as np
from serve.prediction.feedback_store import Entry, FeedbackStore
FeedbackStore(Path({str(path)!r})).add(Entry("a", 5, 3, "7", np.eye(28, dtype=np.uint8)))
"""
    command = [*enter, sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.system("strace", "strace")
@pytest.mark.parametrize(("fault", "error"), [("EDQUOT", "FeedbackFull"), ("EIO", "Operational")])
def test_a_quota_that_is_used_up_is_a_full_disk_and_a_broken_disk_is_none(tmp_path, fault, error):
    fails = f"--inject=pwrite64:error={fault}"  # as SQLite writes, and nothing else
    strace = "strace", "-f", "--output=/dev/null", "--trace=pwrite64", fails
    assert error in refused(tmp_path / "feedback.db", *strace)


@pytest.mark.system("unshare", "util-linux")
def test_a_disk_that_takes_no_more_files_is_full(tmp_path):
    disk = SmallDisk(tmp_path / "state")
    try:
        disk.fill_files()
        assert disk.free() > 2**20
        assert "FeedbackFull" in refused(tmp_path / "state" / "feedback.db", *disk.enter)
    finally:
        disk.close()


def test_it_grows_no_larger_than_it_may(tmp_path):
    path, longest = tmp_path / "feedback.db", {"model_version": "7" * 48, "owner": "f" * 16}
    feedback = FeedbackStore(path, 2**18)

    def fill():
        for number in itertools.count():
            feedback.add(entry(request_id=f"{number:064}", **longest))

    with pytest.raises(FeedbackFullError, match="it has 262,144 bytes"):
        fill()
    stored = len(feedback.entries())
    assert stored > 2**18 / 1300  # what the documents say of an entry's size
    assert path.stat().st_size <= 2**18
    assert feedback.add(entry(request_id=f"{0:064}", label=9, **longest))  # takes no more room
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM feedback")
    assert feedback.add(entry())
    smaller = FeedbackStore(path, 2**16)
    assert smaller.add(entry(request_id="b"))  # into what has become free


def test_a_lock_is_waited_for_and_then_given_up(tmp_path):
    feedback = FeedbackStore(tmp_path / "feedback.db")
    feedback.add(entry())
    with closing(sqlite3.connect(tmp_path / "feedback.db", isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(FeedbackBusyError):
            feedback.add(entry(label=6), time.monotonic() + 0.1)
        with pytest.raises(FeedbackBusyError):
            feedback.find("a", until=time.monotonic() - 1)
        writer = threading.Thread(target=feedback.add, args=(entry(label=7),))
        writer.start()
        connection.execute("ROLLBACK")
        writer.join()
    assert feedback.find("a").label == 7


@pytest.mark.fault(
    "first feedback from 16 threads at the same time", "0 of 320", "every entry is stored"
)
def test_first_entries_at_the_same_time_are_all_stored(tmp_path):
    """Four processes with four threads each begin twenty databases together."""
    code = f"""
import sys, threading, time
sys.path.insert(0, "tests")
from pathlib import Path
from support.feedback_entries import entry
from serve.prediction.feedback_store import FeedbackStore
def add(path, number):
    FeedbackStore(path).add(entry(number))
print("ready", flush=True)
sys.stdin.readline()
for round in range(20):
    path = Path({str(tmp_path)!r}) / f"{{round}}.db"
    numbers = range(4 * int(sys.argv[1]), 4 * int(sys.argv[1]) + 4)
    threads = [threading.Thread(target=add, args=(path, number)) for number in numbers]
    [each.start() for each in threads]
    [each.join() for each in threads]
"""
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(number)], cwd=ROOT, stdin=pipe, stdout=pipe, text=True
        )
        for number in range(4)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    for path in tmp_path.glob("*.db"):
        found = [
            int(one.request_id.removeprefix("request-")) for one in FeedbackStore(path).entries()
        ]
        assert sorted(found) == list(range(16))


def test_what_is_no_database_is_refused_as_such(tmp_path):
    (tmp_path / "feedback.db").write_text("no database" * 100)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        FeedbackStore(tmp_path / "feedback.db").entries()


def test_reading_makes_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        FeedbackStore(tmp_path / "state" / "feedback.db").entries()
    assert list(tmp_path.iterdir()) == []


def test_it_is_known_when_something_was_told(tmp_path):
    feedback = FeedbackStore(tmp_path / "feedback.db")
    feedback.add(entry(given_at="1999-01-01"))
    (kept,) = feedback.entries()
    age = datetime.now(UTC) - datetime.fromisoformat(kept.given_at)
    assert timedelta(0) <= age < timedelta(minutes=1)


@pytest.fixture
def api(client):
    return client()


def give(api, **given):
    return api.post("/feedback", json=given)


def test_the_image_of_a_recent_request_is_kept(api, settings):
    answer = api.post("/predict", content=picture(), headers=PNG).json()
    given = give(api, request_id=answer["request_id"], label=3)
    assert given.json() == {
        "request_id": answer["request_id"],
        "label": 3,
        "prediction": 3,
        "correct": True,
        "model_version": answer["model_version"],
    }
    assert give(api, request_id=answer["request_id"], label=3).json() == given.json()
    (kept,) = FeedbackStore(settings().state_dir / "feedback.db").entries()
    assert kept.request_id == answer["request_id"]
    assert kept.image.max() > 128
    metrics = api.get("/metrics").text
    version = answer["model_version"]
    assert f'feedback_total{{correct="true",model_version="{version}"}} 1.0' in metrics


def test_an_id_that_is_used_again_means_the_latest_picture(api, settings):
    for label, picture_of in ((3, picture()), (1, picture(60))):
        headers = PNG | {"x-request-id": "trace"}
        answer = api.post("/predict?image=true", content=picture_of, headers=headers).json()
        assert give(api, request_id="trace", label=label).status_code == 200
        (kept,) = FeedbackStore(settings().state_dir / "feedback.db").entries()
        assert kept.label == label
        shown = Image.open(io.BytesIO(base64.b64decode(answer["image"].partition(",")[2])))
        np.testing.assert_array_equal(kept.image, np.asarray(shown))


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_page_of_another_origin_cannot_send_it_unasked(api, kind):
    """A script needs no leave for bodies that do not say that they are JSON."""
    body = b'{"request_id": "a", "label": 5}'
    refused = api.post("/feedback", content=body, headers={"content-type": kind} if kind else {})
    assert refused.status_code == 415
    assert "application/json" in refused.json()["detail"]


@pytest.mark.fault("feedback for the id of somebody else", "0", "404; the owner's entry stays")
def test_an_id_belongs_to_the_key_that_got_it(client, settings):
    """Whoever guesses another's id can neither label its picture nor change its feedback."""
    api = client(api_keys="mine,theirs")
    mine, theirs = ({"x-api-key": key} for key in ("mine", "theirs"))
    shown = api.post("/predict", content=picture(), headers=PNG | mine | {"x-request-id": "same"})
    assert shown.status_code == 200

    def tell(headers, **given):
        return api.post("/feedback", json={"request_id": "same", **given}, headers=headers)

    assert tell(theirs, label=1).status_code == 404
    assert tell(mine, label=3).status_code == 200
    assert tell(theirs, label=1).status_code == 404
    assert tell(theirs, label=1, image=text(picture(60))).status_code == 200
    assert tell(theirs, label=2).status_code == 200
    kept = FeedbackStore(settings().state_dir / "feedback.db").entries()
    assert sorted((one.request_id, one.label) for one in kept) == [("same", 2), ("same", 3)]
    assert len({one.owner for one in kept}) == 2


def test_a_picture_of_a_batch_a_tensor_or_a_websocket_has_an_owner_too(api):
    ids = {"x-request-id": "many"}
    api.post("/predict/batch", json={"images": [text(picture())] * 2}, headers=ids)
    assert give(api, request_id="many.1", label=3).status_code == 200
    tensor = {"name": "image", "shape": [1, 784], "datatype": "UINT8", "data": [9] * 784}
    api.post("/v2/models/mnist-classifier/infer", json={"inputs": [tensor]}, headers=ids)
    assert give(api, request_id="many.0", label=3).status_code == 200
    with api.websocket_connect("/predict/stream", headers={"x-request-id": "drawn"}) as socket:
        socket.send_bytes(picture())
        socket.receive_json()
    assert give(api, request_id="drawn.1", label=3).status_code == 200


def test_none_of_the_digits_is_kept_and_does_not_count_as_wrong(api, settings):
    api.post("/predict", content=picture(), headers=PNG | {"x-request-id": "scribble"})
    answer = give(api, request_id="scribble", label=None).json()
    assert (answer["label"], answer["prediction"], answer["correct"]) == (None, 3, False)
    (kept,) = FeedbackStore(settings().state_dir / "feedback.db").entries()
    assert kept.label == NO_DIGIT
    version = answer["model_version"]
    metrics = api.get("/metrics").text
    assert f'feedback_not_digit_total{{model_version="{version}"}} 1.0' in metrics
    assert f'feedback_total{{correct="false",model_version="{version}"}} 0.0' in metrics
    assert api.post("/feedback", json={"request_id": "scribble"}).status_code == 422  # no label


@pytest.mark.fault(
    "`feedback.db` locked", "0", "503 with `Retry-After`; the repetition is stored once"
)
def test_a_locked_database_is_503_and_the_repetition_is_stored_once(api, settings, monkeypatch):
    monkeypatch.setattr(route, "WAIT_SECONDS", 0.1)
    path = settings().state_dir / "feedback.db"
    given = {"request_id": "unknown", "label": 5, "image": text(picture())}
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        refused = give(api, **given)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert "try again" in refused.json()["detail"]
    assert [give(api, **given).status_code for _ in range(2)] == [200, 200]
    assert len(FeedbackStore(path).entries()) == 1


@pytest.mark.fault(
    "feedback beyond `FEEDBACK_MAX_BYTES`", "that entry", "507 with the limit; predictions go on"
)
def test_beyond_its_limit_feedback_is_refused_with_the_reason(client):
    api = client(feedback_max_bytes=2**16)
    statuses = []
    while 507 not in statuses:
        given = {"request_id": f"id-{len(statuses)}", "label": 3, "image": text(picture())}
        refused = give(api, **given)
        statuses.append(refused.status_code)
    assert set(statuses[:-1]) == {200}
    assert refused.json() == {"detail": "no more feedback is stored: it has 65,536 bytes"}
    assert api.post("/predict", content=picture(), headers=PNG).status_code == 200


def test_an_unknown_request_needs_its_image(api):
    assert give(api, request_id="unknown", label=5).status_code == 404
    given = give(api, request_id="unknown", label=5, image=text(picture()))
    assert given.status_code == 200
    assert given.json()["correct"] is False
    assert give(api, request_id="unknown", label=5).status_code == 200


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"request_id": "a"}, 422),
        ({"request_id": "a", "label": 10}, 422),
        ({"request_id": "a", "label": "5"}, 422),
        ({"request_id": "a", "label": True}, 422),
        ({"request_id": "x" * 65, "label": 5}, 422),
        ({"request_id": "a\nb", "label": 5}, 422),
        ({"request_id": "a", "label": 5, "image": "%"}, 400),
        ({"request_id": "a", "label": 5, "image": text(b"no image")}, 400),
        ({"request_id": "a", "label": 5, "image": text(picture(ink=255))}, 422),
    ],
)
def test_wrong_feedback_is_refused(api, given, status):
    refused = give(api, **given)
    assert refused.status_code == status
    assert refused.json()["detail"]
