import asyncio
import math

import pytest
from support.bundles import PNG, picture, text

from serve.http import access_control
from serve.http.access_control import BodyTooLargeError
from serve.http.body_memory import BodyMemory
from serve.http.rate_limit import RateLimit
from serve.settings import Settings
from serve.telemetry.request_context import RequestContext

OPEN = ["/health", "/health/live", "/health/ready", "/metrics", "/api/info", "/openapi.json"]
OPEN += ["/api/docs", "/api/redoc", "/v2/health/live", "/v2/health/ready"]


def ask(api, **headers):
    return api.post("/predict", content=picture(), headers={**PNG, **headers})


def test_with_keys_only_who_has_one_may(client):
    api = client(api_keys="one,two")
    for headers in (
        {"authorization": "Bearer one"},
        {"authorization": "bearer two"},
        {"x-api-key": "two"},
    ):
        assert ask(api, **headers).status_code == 200
    for headers, fault in (
        ({}, "needed"),
        ({"authorization": "Bearer three"}, "wrong"),
        ({"authorization": "Basic one"}, "needed"),
        ({"authorization": "one"}, "needed"),
        ({"x-api-key": ""}, "needed"),
        ({"x-api-key": "one,two"}, "wrong"),
    ):
        refused = ask(api, **headers)
        assert refused.status_code == 401, headers
        assert refused.headers["www-authenticate"] == "Bearer"
        assert refused.headers["x-request-id"]
        assert fault in refused.json()["detail"]


def test_only_what_is_known_is_open(client):
    api = client(api_keys="one")
    for path in OPEN:
        assert api.get(path).status_code == 200, path
    closed = ["/v2", "/v2/models/mnist-classifier", "/v2/models/mnist-classifier/versions/1"]
    closed += ["/api/window", "/api/reference"]
    for path in (*closed, "/nothing", "//health/live", "/predict/"):
        assert api.get(path).status_code == 401, path
    assert api.post("/feedback", json={}).status_code == 401


def test_a_limit_says_what_is_left_and_when_more_may_come(client):
    api = client(rate_limit="2/minute;100/hour")
    left = []
    for _ in range(2):
        answer = ask(api)
        assert answer.status_code == 200
        assert answer.headers["x-ratelimit-limit"] == "2"
        assert 0 < int(answer.headers["x-ratelimit-reset"]) <= 120
        left.append(answer.headers["x-ratelimit-remaining"])
    assert left == ["1", "0"]
    refused = ask(api)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert refused.headers["x-ratelimit-remaining"] == "0"
    assert api.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("limits", "nearest", "remaining", "longest"),
    [
        ("3/minute;100/hour", 3, 2, 60),
        ("100/hour;3/minute", 3, 2, 60),
        ("5/minute;4/hour", 4, 3, 3600),
        ("2/minute;2/day", 2, 1, 86400),
        ("2/day;2/minute", 2, 1, 86400),
    ],
)
def test_the_headers_describe_the_nearest_limit(settings, limits, nearest, remaining, longest):
    """The one with the fewest requests left; of two such, the one that lasts longer."""
    left = asyncio.run(RateLimit(settings(rate_limit=limits)).hit("somebody"))
    assert (left.limit, left.remaining, left.exceeded) == (nearest, remaining, False)
    assert left.reset <= 2 * longest
    assert longest == 60 or left.reset > 120


def test_each_key_has_its_own_limit(client):
    api = client(rate_limit="1/minute", api_keys="one,two")
    statuses = [ask(api, **{"x-api-key": key}).status_code for key in ("one", "one", "two", "bad")]
    assert statuses == [200, 429, 200, 401]


def test_what_is_refused_counts_for_no_limit(settings):
    rate_limit = RateLimit(settings(rate_limit="1/second;5/hour"))

    async def asked():
        return [await rate_limit.hit("somebody") for _ in range(8)]

    first, *others = asyncio.run(asked())
    assert not first.exceeded
    assert all(left.exceeded and left.limit == 1 for left in others)
    assert (
        asyncio.run(rate_limit._strategy.get_window_stats(rate_limit._limits[1], "somebody"))[1]
        == 4
    )


@pytest.mark.fault("keys guessed by HTTP", "0", "401, then 429; the right key is still taken")
def test_who_guesses_keys_is_slowed_down(client):
    api = client(rate_limit="3/minute", api_keys="one")
    statuses = [ask(api, **{"x-api-key": f"guess {n}"}).status_code for n in range(5)]
    assert statuses == [401, 401, 401, 429, 429]
    assert ask(api, **{"x-api-key": "one"}).status_code == 200


def test_when_the_storage_fails_callers_are_let_through(settings, caplog):
    rate_limit = RateLimit(
        settings(rate_limit="1/minute", rate_limit_storage="redis://127.0.0.1:1/0")
    )
    for seconds, complaints in ((0, 1), (0, 1), (20, 1), (10, 2)):  # one in 30 s
        rate_limit._complained -= seconds
        assert asyncio.run(rate_limit.hit("somebody")) is None
        assert caplog.text.count("not enforced") == complaints


ONE = 30_000 * 4 // 3 + 64 * 1024  # an image as base64, and what is around it
LIMITS = [
    ("/predict", ONE),
    ("/explain", ONE),
    ("/feedback", ONE),
    ("/predict/batch", 2 * ONE),
    ("/v2/models/mnist-classifier/infer", 2 * 28 * 28 * 24 + 64 * 1024),
    ("/v2/models/mnist-classifier/versions/VERSION/infer", 2 * 28 * 28 * 24 + 64 * 1024),
]


@pytest.mark.parametrize(("path", "limit"), LIMITS)
def test_bodies_above_the_limit_of_their_path_are_refused(client, path, limit):
    api = client(max_image_bytes=30_000, max_batch=2)
    path = path.replace("VERSION", api.get("/health").json()["model_version"])
    kind = {"content-type": "application/json"}

    def ask(size, content=bytes):
        answer = api.post(path, content=content(b"x" * size), headers=kind)
        return answer.status_code, answer.json()["detail"]

    for sent in (
        bytes,
        lambda body: iter([body[:1000], body[1000:]]),
    ):  # with a length, and without
        assert ask(limit, sent)[0] == 422
        assert ask(limit + 1, sent) == (413, f"the body has more than {limit:,} bytes")


def read_body(declared=None, limit=1000):
    """How many bytes of an endless body are read before it is refused, how many messages passed."""
    taken = passed = 0

    async def receive():
        nonlocal taken
        taken += 100
        return {"type": "http.request", "body": bytes(100), "more_body": True}

    headers = [] if declared is None else [(b"content-length", b"%d" % declared)]
    scope = {"type": "http", "headers": headers}
    RequestContext(scope)
    limited = access_control._Body(scope, receive, limit, 1, BodyMemory(2**30))

    async def read():
        nonlocal passed
        while True:
            await limited()
            passed += 1

    with pytest.raises(BodyTooLargeError):
        asyncio.run(read())
    return taken, passed


def test_a_body_is_read_no_further_than_its_limit():
    assert read_body() == read_body(declared=1000) == (1100, 10)
    assert read_body(declared=1001) == (0, 0)


def test_an_image_of_just_the_limit_passes(client):
    api = client(max_image_bytes=len(picture()))
    assert ask(api).status_code == 200
    assert api.post("/predict", json={"image": text(picture())}).status_code == 200
    larger = api.post("/predict", content=picture(300), headers=PNG)
    assert larger.status_code == 413


def test_other_origins_are_refused_unless_named(client):
    preflight = {
        "origin": "https://a.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-api-key",
    }
    closed = client().options("/predict", headers=preflight)
    assert "access-control-allow-origin" not in closed.headers
    api = client(cors_origins="https://a.example", api_keys="one")
    allowed = api.options("/predict", headers=preflight)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://a.example"
    assert "access-control-allow-credentials" not in allowed.headers
    evil = api.options("/predict", headers={**preflight, "origin": "https://evil.example"})
    assert "access-control-allow-origin" not in evil.headers
    # An error can be read by the page, too.
    refused = ask(api, origin="https://a.example")
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://a.example"


def test_pages_of_other_origins_may_send_the_headers_that_are_named(client):
    def allowed(name, **given):
        preflight = {
            "origin": "https://a.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": name,
        }
        api = client(cors_origins="https://a.example", **given)
        return api.options("/predict", headers=preflight).status_code == 200

    assert allowed("content-type, x-requested-with, x-api-key, inference-header-content-length")
    assert not allowed("x-mine")
    assert allowed("x-mine", cors_headers="X-Mine,X-Yours")
    assert not allowed("x-api-key", cors_headers="X-Mine,X-Yours")
    assert allowed("x-mine", cors_headers="*")


def test_what_is_refused_is_counted_under_the_route_that_was_asked_for(client):
    api = client(api_keys="one", rate_limit="3/minute")
    one = {"x-api-key": "one"}
    version = "/v2/models/mnist-classifier/versions/{version}"
    api.app.bodies.held = api.app.service.settings.max_body_memory
    asked = [
        ("/predict", 401, {}),
        ("/predict", 415, one | {"content-encoding": "br"}),
        ("/predict", 503, one),
        (f"{version}/infer", 404, one),
        (f"{version}/infer", 429, one),
        ("unmatched", 429, one),
    ]
    for path, status, headers in asked:
        assert (
            api.post(path.format(version=9), content=b"{}", headers=headers).status_code == status
        )
    counted = api.get("/metrics").text
    for path, status, _ in asked:
        labels = f'endpoint="{path}",method="POST",status_code="{status}"'
        assert f"api_requests_total{{{labels}}} 1.0" in counted


@pytest.mark.parametrize(
    ("shape", "images", "limit"),
    [
        ((28, 28, 1), 256, 256 * 784 * 24),
        ((96, 96, 3), 256, 8 * 2**20),  # JSON takes many times its size when it is parsed
        ((512, 512, 3), 256, 512 * 512 * 3 * 24),  # one image
        ((28, 28, 1), 2, 2 * 784 * 24),
    ],
)
def test_tensors_of_large_images_have_a_limit_that_memory_bears(shape, images, limit):
    given = Settings(max_batch=images)
    sizes = {"m": math.prod(shape)}
    control = access_control.AccessControl(
        None, given, access_control.Access(given), BodyMemory(2**20), lambda: sizes
    )
    assert control._limit("/v2/models/m/infer") == (limit + 64 * 1024, 1)
    assert control._limit("/v2/models/other/infer")[0] == 64 * 1024
