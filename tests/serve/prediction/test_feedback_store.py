import base64
import io
import itertools
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from PIL import Image
from support.bundles import PNG, picture, text
from support.service_process import ROOT

from serve.prediction.feedback_store import Entry, FeedbackStore


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


def test_it_survives_the_death_of_its_process(tmp_path):
    dying = f"""
import os, numpy as np
from pathlib import Path
from serve.prediction.feedback_store import Entry, FeedbackStore
image = np.ones((28, 28), np.uint8)
FeedbackStore(Path({str(tmp_path / "f.db")!r})).add(Entry("a", 5, 3, "7", image))
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", dying], cwd=ROOT).returncode == -9
    assert FeedbackStore(tmp_path / "f.db").find("a").label == 5


def test_reading_leaves_no_trace(tmp_path):
    """Another user's log beside the file would keep the service from writing."""
    feedback = FeedbackStore(tmp_path / "feedback.db")
    feedback.add(entry())
    before = feedback._state()
    assert [one.request_id for one in feedback.entries()] == ["a"]
    assert feedback._state() == before
    assert [path.name for path in tmp_path.iterdir()] == ["feedback.db"]


def test_what_a_service_at_work_has_not_moved_into_the_file_is_read_too(tmp_path):
    feedback = FeedbackStore(tmp_path / "feedback.db")
    feedback.add(entry())
    with closing(sqlite3.connect(tmp_path / "feedback.db")) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE feedback SET label = 9")
        assert [one.label for one in feedback.entries()] == [5], "not committed"
        connection.commit()
        names = {path.name for path in tmp_path.iterdir()}
        assert [one.label for one in feedback.entries()] == [9]
        assert {path.name for path in tmp_path.iterdir()} == names
        connection.execute("UPDATE feedback SET label = 8")  # nobody holds it up
        connection.commit()


def test_reader_and_writer_do_not_disturb_each_other(tmp_path):
    feedback = FeedbackStore(tmp_path / "feedback.db")
    feedback.add(entry(request_id="0"))

    def write():
        for number in range(1, 200):
            feedback.add(entry(request_id=f"{number}"))

    writer = threading.Thread(target=write)
    writer.start()
    counts = []
    while writer.is_alive():
        try:
            counts.append(len(feedback.entries()))
        except sqlite3.OperationalError as error:
            assert "changes without a pause" in str(error)  # noqa: PT017 - one of two endings
    writer.join()
    assert counts == sorted(counts)
    assert len(feedback.entries()) == 200


def test_a_file_that_never_rests_is_given_up(tmp_path, monkeypatch):
    feedback = FeedbackStore(tmp_path / "feedback.db")
    feedback.add(entry())
    state, ticks = feedback._state(), itertools.count()
    monkeypatch.setattr(feedback, "_state", lambda: (*state[:2], next(ticks)))
    with pytest.raises(sqlite3.OperationalError, match="changes without a pause"):
        feedback.entries()


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
    kept = FeedbackStore(settings().state_dir / "feedback.db").find(answer["request_id"])
    assert kept.image.max() > 128
    metrics = api.get("/metrics").text
    version = answer["model_version"]
    assert f'feedback_total{{correct="true",model_version="{version}"}} 1.0' in metrics


def test_an_id_that_is_used_again_means_the_latest_picture(api, settings):
    for label, picture_of in ((3, picture()), (1, picture(60))):
        headers = PNG | {"x-request-id": "trace"}
        answer = api.post("/predict?image=true", content=picture_of, headers=headers).json()
        assert give(api, request_id="trace", label=label).status_code == 200
        kept = FeedbackStore(settings().state_dir / "feedback.db").find("trace")
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
