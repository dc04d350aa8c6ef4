import pytest
from support.hostile_inputs import MAY_BE_READ, corpus
from support.processes import megabytes


@pytest.mark.alone
def test_the_corpus_is_answered_with_4xx_and_a_clear_detail_and_leaves_memory_as_it_was(service):
    inputs = list(corpus())
    assert len(inputs) >= 300
    assert len({name for name, *_ in inputs}) == len(inputs)
    (worker,) = service.children()
    with service.client() as api:

        def wrong():
            for name, path, body, headers in inputs:
                response = api.post(path, content=body, headers=headers)
                if response.status_code == 200 and any(part in name for part in MAY_BE_READ):
                    continue
                detail = response.json().get("detail")
                fine = 400 <= response.status_code < 500 and isinstance(detail, str) and detail
                if not fine or len(detail) > 1000:
                    yield name, response.status_code, response.text[:200]

        before = 0.0
        for _ in range(6):  # takes what buffers it needs, in each thread; then it goes up and down
            assert not list(wrong())
            before = max(before, megabytes(worker))
        for _ in range(2):
            assert not list(wrong())
        assert megabytes(worker) < before + 20
    assert service.children() == [worker]
    assert not [line for line in service.lines() if line["level"] == "error"]
