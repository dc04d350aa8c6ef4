"""A build that is watched: MLflow and `reports/index.html` while `dvc repro` runs on the digits."""

import sqlite3
from contextlib import closing

import pytest
from support.clones import quick, unbuilt
from support.processes import until

pytestmark = [pytest.mark.nightly, pytest.mark.slow]
RUNS = """\
select name, status, exists (select 1 from tags where run_uuid = r.run_uuid and key = 'complete')
from runs r where lifecycle_stage = 'active'
"""


def runs(folder):
    with closing(sqlite3.connect(f"file:{folder / 'mlflow.db'}?mode=ro", uri=True)) as database:
        return sorted(database.execute(RUNS))


def test_a_build_can_be_watched_and_leaves_what_an_unwatched_one_leaves(tmp_path):
    clone = quick(unbuilt(tmp_path / "watched"))
    clone.pick("data", "digits")
    clone.commit("digits")
    page = clone.folder / "reports" / "index.html"
    with clone.start("dvc", "repro") as build:
        until(page.exists, "the page of the first training")
        assert "loads itself again" in page.read_text()
        assert [(status, whole) for _, status, whole in runs(clone.folder)][:1] in (
            [("RUNNING", 0)],
            [("FINISHED", 0)],
        )
        output, _ = build.communicate(timeout=600)
    assert build.returncode == 0, output
    assert "loads itself again" not in page.read_text()
    assert runs(clone.folder) == [
        ("run-1-baseline", "FINISHED", 1),
        ("run-2-enhanced", "FINISHED", 1),
        ("run-3-optimized", "FINISHED", 1),
    ]
    assert "up to date" in clone.run("dvc", "status")
    built = clone.read("dvc.lock")
    clone.run("dvc", "repro", "--force", LIVE_LOG="0")
    assert clone.read("dvc.lock") == built
    assert len(runs(clone.folder)) == 3
