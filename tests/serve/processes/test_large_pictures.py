"""Pictures of many megapixels: a worker answers four at once within its documented memory.

With RECORD=--record the measurements go to docs/tables (`make tables`).
"""

import os
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from support.bundles import PNG, picture, text
from support.large_pictures import LARGE
from support.processes import megabytes

from docs.tools import recorded, tables

COLUMNS = ["picture", "bytes", "processor time of one", "memory above rest, four at once"]


@pytest.fixture(scope="module")
def rows():
    """What was found, in the end for the docs."""
    found = []
    yield found
    if os.environ.get("RECORD") and len(found) == len(LARGE):
        command = "RECORD=--record python -m pytest tests/serve/processes/test_large_pictures.py"
        tables.write("large-pictures", tables.Table(command, recorded.machine(), COLUMNS, found))


def processor(pid):
    """Its seconds of processor time."""
    used = psutil.Process(pid).cpu_times()
    return used.user + used.system


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("name", LARGE)
def test_four_at_once_are_answered_within_the_documented_memory(ready, rows, name):
    service = ready(API_WORKERS=1)
    (worker,) = service.children()
    content = LARGE[name]()
    with service.client() as api:

        def predict(content=content):
            return api.post("/predict", content=content, headers=PNG).status_code

        def predict_batch():
            answer = api.post("/predict/batch", json={"images": [text(content)]})
            return answer.json()["predictions"][0].get("status", 200)

        assert predict(picture()) == 200
        rest = megabytes(worker)
        with ThreadPoolExecutor(4) as four:
            asked = [four.submit(work) for work in (predict_batch, predict, predict, predict)]
            assert [one.result() for one in asked] == [200] * 4
        peak = megabytes(worker, "VmHWM")
        before = processor(worker)
        assert [predict() for _ in range(3)] == [200] * 3
        seconds = (processor(worker) - before) / 3
    rows.append([name, f"{len(content):,}", f"{seconds:.2f} s", f"{peak - rest:.0f} MB"])
    assert peak < 374  # docs/MEASUREMENTS.md
