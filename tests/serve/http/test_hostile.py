import pytest
from support.hostile_inputs import MAY_BE_READ, corpus


def test_the_corpus_is_answered_with_4xx_and_a_clear_detail(client):
    api = client()
    inputs = list(corpus())
    assert len(inputs) >= 300
    assert len({name for name, *_ in inputs}) == len(inputs)
    wrong = []
    for name, path, body, headers in inputs:
        response = api.post(path, content=body, headers=headers)
        if response.status_code == 200 and any(part in name for part in MAY_BE_READ):
            continue
        detail = response.json().get("detail")
        fine = 400 <= response.status_code < 500 and isinstance(detail, str) and detail
        if not fine or len(detail) > 1000:
            wrong.append((name, response.status_code, response.text[:200]))
    assert not wrong, "\n".join(map(str, wrong))


def memory(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:  # noqa: PTH123 - no path, a process
        pss = next(line for line in file if line.startswith("Rss:"))
    return int(pss.split()[1]) / 1024


@pytest.mark.alone
def test_the_corpus_leaves_memory_as_it_was(start):
    service = start(API_WORKERS=1)
    service.ready()
    (worker,) = service.children()
    with service.client() as api:

        def send_all():
            for _, path, body, headers in corpus():
                response = api.post(path, content=body, headers=headers)
                assert response.status_code < 500, response.text

        for _ in range(3):  # takes what buffers it needs, in each thread
            send_all()
        before = memory(worker)
        for _ in range(2):
            send_all()
        assert memory(worker) < before + 20
    assert service.children() == [worker]
    assert not [line for line in service.lines() if line["level"] == "error"]
