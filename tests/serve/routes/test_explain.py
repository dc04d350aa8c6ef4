import base64
import io

import numpy as np
import pytest
from PIL import Image
from support.bundles import PNG, picture, text


@pytest.fixture
def api(client):
    return client()


def image(uri):
    kind, _, content = uri.partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def counted(api):
    lines = api.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("predictions_total{"))


def test_the_answer_is_that_of_predict_with_what_it_rests_on(api):
    plain = api.post("/predict?image=true", content=picture(300), headers=PNG).json()
    response = api.post("/explain?image=true", content=picture(300), headers=PNG)
    found = response.json()
    occlusion, steps = found.pop("occlusion"), found.pop("steps")
    given = api.post("/feedback", json={"request_id": found["request_id"], "label": 3})
    assert given.json()["correct"] is True
    assert found.pop("request_id") == response.headers["x-request-id"]
    assert found == {key: plain[key] for key in plain if key != "request_id"}
    assert counted(api) == 2

    falls = np.array(occlusion["falls"])
    covered = (len(falls) - 1) * occlusion["stride"] + occlusion["size"]
    assert (falls.shape, covered) == ((12, 12), 28)
    assert falls.max() > 0  # `made` is the less sure the less ink there is
    heat = np.asarray(image(occlusion["image"])).astype(int)
    assert heat.shape == (224, 224, 3)
    assert (heat[..., 0] > heat[..., 2] + 50).any()  # orange
    assert steps["image"] == found["image"]
    assert image(steps["image"]).size == (28, 28)
    assert image(steps["ink"]).height == 200  # 100 rows, twice as large


def test_the_box_is_drawn_around_the_digit_in_a_small_picture(api):
    steps = api.post("/explain", content=picture(1000), headers=PNG).json()["steps"]
    shown = image(steps["picture"])
    assert shown.size == (240, 240)
    pixels = np.asarray(shown).astype(int)
    rows, columns = np.nonzero(pixels[..., 0] > pixels[..., 2] + 100)
    around = (columns.min(), rows.min(), columns.max(), rows.max())
    assert around == pytest.approx((104, 38, 136, 202), abs=4)


def test_a_draft_is_explained_and_not_counted(api):
    sent = {"image": text(picture()), "draft": True}
    assert api.post("/explain", json=sent).json()["prediction"] == 3
    assert counted(api) == 0


@pytest.mark.parametrize(
    ("content", "status"), [(b"no image", 400), (b"<svg></svg>", 415), (picture(ink=255), 422)]
)
def test_what_cannot_be_read_is_refused_as_by_predict(api, content, status):
    explained, predicted = (
        api.post(path, content=content, headers=PNG) for path in ("/explain", "/predict")
    )
    assert explained.status_code == predicted.status_code == status
    assert explained.json() == predicted.json()
    lines = api.get("/metrics").text.splitlines()
    refused = [line for line in lines if line.startswith("prediction_errors_total{")]
    assert sum(float(line.split()[-1]) for line in refused) == 2
