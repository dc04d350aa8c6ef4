import json
import logging
import os
import shutil
import zipfile

import pandas as pd
import pytest
from PIL import Image
from starlette.testclient import TestClient
from support.bundles import PNG, picture, write_bundle
from support.html_reader import Reader
from support.processes import python

from pipeline import evaluate, score
from pipeline.config import PipelineError, paths
from pipeline.scoring.pictures import LIMITS
from serve.app import create_app
from serve.settings import Settings


@pytest.fixture
def bundle(workspace, litert, brightness):
    """The champion: `trained`'s network, and a likelihood that dim images fall short of."""
    return write_bundle(
        paths.CHAMPION, litert, temperature=1.25, likelihood=brightness, threshold=0.06
    )


@pytest.fixture
def digits(trained, bundle):
    """The 100 test images as PNG files, a folder per digit in one top folder; 2 are misread."""
    for place, (image, label) in enumerate(
        zip(trained.test.images, trained.test.labels, strict=True)
    ):
        file = bundle.parents[1] / "mine" / "digits" / str(label) / f"{place:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return bundle.parents[1] / "mine"


def metrics(out=score.OUT):
    return json.loads((out / "metrics.json").read_text())


def predictions(out=score.OUT):
    return pd.read_csv(out / "predictions.csv")


def page(out=score.OUT):
    return Reader((out / "index.html").read_text())


def test_the_metrics_are_those_of_evaluate(digits, configured):
    evaluate.main(configured(3))
    expected = json.loads((paths.evaluation(3) / "metrics.json").read_text())
    score.main([str(digits)])
    found = metrics()
    assert found["accuracy"] == expected["test_accuracy"] == 0.98
    assert found["loss"] == pytest.approx(expected["test_loss"])
    assert found["ece"] == pytest.approx(expected["ece"])
    same = ("wilson", "errors", "recall", "precision", "confusion")
    assert {key: found[key] for key in same} == {key: expected[key] for key in same}
    assert found["sha256"] == expected["sha256"]


def test_the_answers_are_those_of_the_service(digits, bundle, tmp_path, monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    (digits / "thick.png").write_bytes(picture(200))
    (digits / "specks.jpg").write_bytes(picture(60, "JPEG", ink=200))
    (digits / "none.png").write_bytes(b"none")
    score.main([str(digits)])
    settings = Settings(model_uri=str(bundle), state_dir=tmp_path / "state", log_level="ERROR")
    with TestClient(create_app(settings)) as client:
        for row in predictions().itertuples():
            answer = client.post("/predict", content=(digits / row.file).read_bytes(), headers=PNG)
            if answer.status_code != 200:
                assert (row.detail, row.file) == (answer.json()["detail"], "none.png")
                continue
            found = answer.json()
            for key in ("prediction", "uncertain", "not_digit"):
                assert getattr(row, key) == found[key], row.file
            for key in ("confidence", "digit_likelihood"):
                assert getattr(row, key) == pytest.approx(found[key], rel=1e-4)
    assert 0 < metrics()["not_digit"] < metrics()["images"]
    assert metrics()["unlabelled"] == 3


def test_a_zip_gives_what_its_folder_gives(digits):
    score.main([str(digits)])
    table, found = predictions(), metrics()
    packed = shutil.make_archive("packed", "zip", digits)
    score.main([packed, "--out", "other"])
    pd.testing.assert_frame_equal(predictions(score.Path("other")), table)
    assert metrics(score.Path("other")) == found


def test_a_parquet_file_has_what_the_csv_file_has(digits):
    score.main([str(digits)])
    table = predictions()
    score.main([str(digits), "--format", "parquet"])
    assert not (score.OUT / "predictions.csv").exists()
    found = pd.read_parquet(score.OUT / "predictions.parquet")
    assert list(found) == list(table)
    assert found["file"].tolist() == table["file"].tolist()
    assert found["confidence"].tolist() == pytest.approx(table["confidence"].tolist())
    assert found.dtypes[["label", "prediction"]].astype(str).tolist() == ["Int64", "Int64"]


def test_the_page_shows_each_misread_picture_beside_what_the_model_saw(digits):
    score.main([str(digits)])
    shown = page()
    drawn = [image for image in shown.all("img") if image["src"].startswith("data:image/png")]
    assert [image["alt"] for image in drawn] == [
        *("digits/8/040.png, a 8", "What the model saw"),
        *("digits/9/061.png, a 9", "What the model saw"),
    ]
    assert "8 → 0" in shown.text
    assert "98.00" in shown.text
    assert "DVC tracks" not in shown.text
    assert not shown.all("script")


def test_a_picture_is_explained_as_by_the_service(bundle, tmp_path, monkeypatch, caplog):
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    (tmp_path / "mine.png").write_bytes(picture(200))
    caplog.set_level("INFO")
    score.main(["--explain", str(tmp_path / "mine.png")])
    said, shown = caplog.text, Reader((score.OUT / "explained.html").read_text())
    settings = Settings(model_uri=str(bundle), state_dir=tmp_path / "state", log_level="ERROR")
    with TestClient(create_app(settings)) as client:
        answer = client.post("/explain", content=picture(200), headers=PNG).json()
    steps = [*answer["steps"].values(), answer["occlusion"]["image"]]
    assert [image["src"] for image in shown.all("img")] == steps
    assert f"left {answer['box']['left']}, top {answer['box']['top']}, " in shown.text
    assert f"read as {answer['prediction']}, with {answer['confidence']:.2%}"[:-1] in shown.text
    assert answer["uncertain"] is ("The answer is marked uncertain" in shown.text)
    assert f"read as {answer['prediction']}, " in said
    assert "explained.html" in said


def test_a_refused_picture_is_explained_by_the_reason(bundle, tmp_path):
    (tmp_path / "blank.png").write_bytes(picture(60, ink=255))
    score.main(["--explain", str(tmp_path / "blank.png")])
    shown = Reader((score.OUT / "explained.html").read_text())
    assert "The picture is refused: no digit found" in shown.text
    assert len(shown.all("img")) == 1


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.png", None, "none.png: No such file.*name one picture"),
        ("notes.txt", b"no picture", "notes.txt: the bytes are not an image"),
    ],
)
def test_what_is_no_picture_cannot_be_explained(bundle, tmp_path, name, content, words):
    if content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PipelineError, match=words):
        score.main(["--explain", str(tmp_path / name)])


def test_folders_or_one_picture_are_asked_for(bundle, capsys):
    for arguments in ([], ["mine", "--explain", "one.png"]):
        with pytest.raises(SystemExit):
            score.main(arguments)
        assert "or one picture with --explain" in capsys.readouterr().err


def test_names_are_escaped(digits):
    (digits / "digits" / "0" / "<b>&.png").write_bytes(b"none")
    score.main([str(digits)])
    assert "digits/0/<b>&.png" in page().text


def test_several_sources_have_a_row_each(digits, caplog, capsys):
    one, other = digits.parent / "one" / "digits", digits.parent / "other" / "digits"
    shutil.copytree(digits / "digits", one)
    shutil.copytree(digits / "digits", other, ignore=shutil.ignore_patterns("8"))
    (other / "4" / "blank.png").write_bytes(picture(ink=255))
    loose = digits / "digits" / "4"
    with caplog.at_level(logging.INFO):
        score.main([str(one), str(other), str(loose)])
    found = metrics()
    keys = ("pictures", "unlabelled", "images", "refused", "errors", "accuracy", "worst_class")
    assert {name: [row[key] for key in keys] for name, row in found["sets"].items()} == {
        "one/digits": [100, 0, 100, 0, 2, 0.98, "8"],
        "other/digits": [90, 0, 89, 1, 1, 88 / 89, "9"],
        "4": [0, 10, 0, 0, None, None, None],
    }
    assert (found["images"], found["errors"], found["unlabelled"]) == (189, 3, 10)

    table = predictions()
    assert table["set"].tolist() == ["one/digits"] * 100 + ["other/digits"] * 90 + ["4"] * 10
    assert table["file"].is_unique
    assert "other/digits/4/blank.png: no digit found" in caplog.text
    shown = page()
    assert {"one/digits/9/061.png, a 9", "other/digits/9/061.png, a 9"} < {
        image["alt"] for image in shown.all("img")
    }
    assert "3 sets" in shown.text
    assert "no picture in a folder of a class" in shown.text
    lines = capsys.readouterr().out.splitlines()
    assert next(line.split() for line in lines if line.startswith("one/")) == [
        *("one/digits", "100", "98.00", "93.00\N{EN DASH}99.45", "8:", "90.91", "0")
    ]
    assert max(map(len, lines)) <= 80


def test_sources_without_errors_have_no_worst_digit(digits):
    top = digits / "digits"
    for place in ("8/040.png", "9/061.png"):
        (top / place).unlink()
    (top / "8" / "note.png").write_bytes(b"none")
    other = digits.parent / "other" / "8" / "note.png"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"none")
    score.main([str(digits), str(other.parents[1])])
    rows = metrics()["sets"]
    assert (rows["mine"]["accuracy"], rows["mine"]["worst_class"]) == (1, None)
    assert (rows["other"]["refused"], rows["other"]["accuracy"]) == (1, None)
    assert "no picture was read" in page().text


def test_unlabelled_pictures_get_predictions_alone(digits, caplog):
    score.main([str(digits)])
    assert (score.OUT / "index.html").exists()
    with caplog.at_level(logging.INFO):
        score.main([str(digits / "digits" / "4")])
    assert [path.name for path in score.OUT.iterdir()] == ["predictions.csv"]
    table = predictions()
    assert table["prediction"].tolist() == [4] * 10
    assert table["label"].isna().all()
    assert "read as 4    10" in caplog.text


def test_bad_files_are_named_and_end_nothing(digits, caplog):
    top = digits / "digits"
    before = metrics_of(digits)
    (top / "3" / "note.png").write_text("no picture")
    (top / "3" / "cut.png").write_bytes(picture()[:60])
    (top / "4" / "empty.jpg").write_bytes(b"")
    (top / "4" / "blank.png").write_bytes(picture(ink=255))
    (top / "5" / "large.bmp").write_bytes(b"BM" + bytes(LIMITS.max_image_bytes))
    (top / "6" / "gone.png").symlink_to("nowhere")
    (top / "6" / os.fsdecode(b"\xff.png")).write_bytes(b"none")
    (top / "6" / ".hidden.png").write_bytes(b"none")
    (top / "notes.txt").write_text("left out")
    with caplog.at_level(logging.INFO):
        found = metrics_of(digits)
    refused = predictions().dropna(subset="detail").set_index("file")
    assert sorted(refused.index) == [
        *("digits/3/cut.png", "digits/3/note.png", "digits/4/blank.png", "digits/4/empty.jpg"),
        *("digits/5/large.bmp", r"digits/6/\xff.png"),
    ]
    assert refused["prediction"].isna().all()
    assert refused.loc["digits/4/blank.png", "detail"] == "no digit found"
    assert found.pop("refused") == 6
    assert found.pop("pictures") == 106
    assert found.pop("accuracy_with_refused") == 98 / 106
    assert found.items() <= before.items()
    assert "digits/3/cut.png: the PNG image is damaged" in caplog.text
    assert "and 1 more" in caplog.text
    assert "no digit found" in page().text


def metrics_of(folder):
    score.main([str(folder)])
    return metrics()


def test_a_picture_without_a_class_is_predicted_and_not_scored(digits):
    (digits / "digits" / "letters").mkdir()
    (digits / "digits" / "letters" / "a.png").write_bytes(picture())
    found = metrics_of(digits)
    assert (found["images"], found["unlabelled"]) == (100, 1)
    assert len(predictions()) == 101


def test_a_refused_picture_without_a_class_is_in_no_figure(digits, caplog):
    (digits / "digits" / "letters").mkdir()
    (digits / "digits" / "letters" / "a.png").write_bytes(b"no picture")
    with caplog.at_level(logging.INFO):
        found = metrics_of(digits)
    assert (found["pictures"], found["unlabelled"], found["refused"]) == (100, 1, 0)
    assert "of all" not in caplog.text
    assert "letters/a.png: the bytes are not an image" in caplog.text


@pytest.mark.parametrize("name", ["index.html", "metrics.json"])
def test_an_out_with_other_files_is_refused(digits, name):
    other = digits.parent / "reports" / name
    other.parent.mkdir(exist_ok=True)
    other.write_text("other")
    with pytest.raises(PipelineError, match=f"another {name}"):
        score.main([str(digits), "--out", str(other.parent)])
    assert other.read_text() == "other"


def test_a_class_without_pictures_has_no_recall(digits, caplog):
    shutil.rmtree(digits / "digits" / "9")
    with caplog.at_level(logging.INFO):
        found = metrics_of(digits)
    assert found["recall"][9] is None
    assert found["recall_wilson"][9] is None
    assert "no picture" in page().text


def test_a_bundle_without_a_likelihood_can_be_scored(digits):
    score.main([str(digits), "--bundle", str(paths.model(3))])
    assert predictions()["digit_likelihood"].isna().all()
    assert metrics()["not_digit"] == 0
    assert "no detector" in page().text


def test_the_summary_fits_80_columns(digits):
    (digits / "digits" / "3" / f"{'long ' * 30}.png").write_bytes(b"none")
    ran = run(["-m", "pipeline.score", str(digits)])
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0].startswith("98.00 % of 100 digits read right (95 %: ")
    assert max(map(len, lines)) <= 80
    assert any(line.endswith("long .png: the bytes are not an image") for line in lines)


def run(arguments):
    return python(*arguments, env=os.environ | {"COLUMNS": "80"})


def test_an_error_is_one_line(workspace):
    ran = run(["-m", "pipeline.score", "mine"])
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: models/champion has no model: make repro")
    assert ran.stderr.count("\n") == 1


def test_a_broken_bundle_is_named(digits, bundle):
    (bundle / "model.tflite").write_bytes(b"other")
    with pytest.raises(PipelineError, match=r"models/champion.*--bundle"):
        score.main([str(digits)])


def test_an_out_that_is_no_folder_is_named(digits):
    score.Path("file").touch()
    with pytest.raises(PipelineError, match="--out file"):
        score.main([str(digits), "--out", "file"])


def test_a_broken_entry_of_a_zip_is_refused_alone(digits):
    packed = score.Path(shutil.make_archive("packed", "zip", digits))
    with zipfile.ZipFile(packed) as archive:
        start = archive.getinfo("digits/0/000.png").header_offset
    content = bytearray(packed.read_bytes())
    content[start + 60 : start + 70] = bytes(10)
    packed.write_bytes(content)
    found = metrics_of(packed)
    assert (found["images"], found["refused"]) == (99, 1)
