"""What a full disk does to the service: predictions go on, feedback says why it is refused."""

import re

import pytest
from support.bundles import PNG, picture
from support.service_process import until
from support.small_disk import SmallDisk

pytestmark = pytest.mark.system("unshare", "util-linux")


@pytest.fixture
def disk(tmp_path):
    """A small disk for STATE_DIR."""
    made = SmallDisk(tmp_path / "state")
    yield made
    made.close()


def ask(service, number):
    """The status of a prediction over a connection of its own, so by any worker."""
    with service.client() as api:
        headers = PNG | {"x-request-id": f"id-{number}"}
        return api.post("/predict", content=picture(), headers=headers).status_code


def all_ready(service, disk):
    """Waits until each of two workers has allocated what it writes to."""
    service.ready()
    rings = disk.path / "recent"
    until(lambda: sum(path.stat().st_size > 0 for path in rings.glob("*")) == 2, service)


def give(service, number):
    with service.client() as api:
        return api.post("/feedback", json={"request_id": f"id-{number}", "label": 3})


def metric(service, name):
    with service.client() as api:
        found = re.search(rf"^{re.escape(name)} (\S+)$", api.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else None


def counted(service, path, status):
    labels = f'endpoint="{path}",method="POST",status_code="{status}"'
    return metric(service, f"api_requests_total{{{labels}}}")


def test_predictions_go_on_and_feedback_is_refused_until_there_is_room(start, disk):
    service = start(enter=disk.enter, API_WORKERS=2)
    all_ready(service, disk)
    workers = service.children()
    assert metric(service, "state_free_bytes") == disk.free() > 0
    disk.fill()
    assert [ask(service, number) for number in range(60)] == [200] * 60
    refused = give(service, 7)
    assert refused.status_code == 507
    assert "no space left on the disk" in refused.json()["detail"]
    until(lambda: counted(service, "/predict", 200) == 60, service)
    until(lambda: counted(service, "/feedback", 507) == 1, service)
    until(lambda: metric(service, "active_requests") == 0, service)
    assert metric(service, "state_free_bytes") == 0
    disk.empty()
    assert [give(service, number).status_code for number in range(60)] == [200] * 60
    until(lambda: counted(service, "/feedback", 200) == 60, service)
    assert service.children() == workers


def test_it_starts_on_a_full_disk_and_recovers(ready, start, disk):
    """As a pod does whose volume is full; here not even the old files leave it room."""
    service = start(enter=disk.enter, API_WORKERS=2)
    all_ready(service, disk)
    service.stop()
    for path in [*disk.path.glob("recent/*"), *disk.path.glob("metrics/*")]:
        path.unlink()
    disk.fill()
    service = ready(enter=disk.enter, API_WORKERS=2)
    workers = service.children()
    assert [ask(service, number) for number in range(20)] == [200] * 20
    assert metric(service, "state_free_bytes") == 0
    assert "feedback needs the image" in service.output()
    disk.empty()

    def kept():
        assert ask(service, "late") == 200
        return give(service, "late").status_code == 200

    until(kept, service)
    until(lambda: (counted(service, "/predict", 200) or 0) > 20, service)
    assert service.children() == workers
