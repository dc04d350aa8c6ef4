"""What the documents name exists: files, commands, settings, endpoints, variables, metrics."""

import functools
import re

import pytest
import yaml
from omegaconf import OmegaConf
from starlette.routing import Mount
from support.documents import NAMES, ROOT, document, documents, folders, tracked, words

from pipeline import config
from serve.app import create_app
from serve.settings import Settings

# Paths that a command or the reader makes; what lies below one exists with it.
MADE = {
    *(".venv", ".checkpoints", ".demo", ".env", ".state", "build", "data/raw", "mlartifacts"),
    *("data/feedback.npz", "data/feedback.npz.dvc", "logs/search", "logs/sweeps"),
    *("reports/experiments.html", "reports/search", "reports/timings.json"),
    *("conf/run/4.yaml", "conf/data/few.yaml"),
}
# Names of other programs, and one that the exporter puts together.
THEIRS = {"GITHUB_TOKEN", "ON_ERROR_STOP", "RAY_ADDRESS", "n_jobs", "parentbased_traceidratio"}
THEIRS |= {"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_TRACES_SAMPLER"}
THEIRS |= {"OTEL_TRACES_SAMPLER_ARG", "pg_dump", "pipeline_validation_accuracy"}
OURS = ("bench", "deploy", "docs", "monitoring", "pipeline", "serve")
# Tops of paths that are no endpoints: folders of the machine, pages of Prometheus and MLflow.
ELSEWHERE = re.compile(r"/(state|tmp|etc|dev|mlflow|trainer|rules|-|api/2\.0)(/.*)?")


@functools.cache
def stage_outputs():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    outs = [out for stage in stages.values() for out in stage["outs"]]
    paths = (out if isinstance(out, str) else next(iter(out)) for out in outs)
    return {re.sub(r"\$\{[^}]*\}", "n", path) for path in paths}


def exists(path):
    """Whether a path is in Git or made; `<n>` and `*` stand for any name."""
    made = {*MADE, *stage_outputs()}
    if any(re.sub(r"<[^>]+>", "n", path).startswith(f"{each}/") for each in made):
        return True
    pattern = "[^/]+".join(map(re.escape, re.split(r"<[^>]+>|\*", path)))
    return any(re.fullmatch(pattern, known) for known in (*tracked(), *folders(), *made))


@pytest.mark.parametrize("name", NAMES)
def test_a_path_that_is_named_exists(name):
    tops = {known.split("/")[0] for known in (*tracked(), *MADE)}
    words = [
        word.removeprefix("@").removeprefix("./").rstrip("/…")
        for text in document(name).typed()
        for word in re.split(r"[\s'\"=,;()]+|:(?!//)", text)
    ]
    paths = {word for word in words if "/" in word and word.split("/")[0] in tops}
    assert {path for path in paths if not exists(path)} == set()


@pytest.mark.parametrize("name", NAMES)
def test_a_test_that_is_named_exists(name):
    tests = "".join((ROOT / path).read_text() for path in tracked() if path.startswith("tests/"))
    spans = {span for span in document(name).spans() if re.fullmatch(r"test_\w+", span)}
    assert {span for span in spans if f"def {span}(" not in tests} - words() == set()


def test_the_tree_in_the_architecture_is_the_tree_on_disk():
    tree = (
        document("docs/ARCHITECTURE.md").text.split("\n## Where things are\n")[1].split("\n## ")[0]
    )
    listed = set(re.findall(r"^(\S+?)/? {2,}\S", tree, re.MULTILINE))
    wanted = {name.split("/")[0] for name in tracked() if "/" in name and name[0] != "."}
    assert wanted - {"data"} <= listed
    assert all((ROOT / name).exists() for name in listed)


@pytest.mark.parametrize("name", NAMES)
def test_a_program_that_is_named_has_its_options(name):
    """Each `python -m MODULE --OPTION` of ours; an option stands in the module or its folder."""
    wrong = []
    for text in document(name).typed():
        for program, rest in re.findall(r"python (?:-m )?([\w./]+)([^|;&]*)", text):
            if program.split(".")[0] not in (*OURS, "train") or program.endswith("."):
                continue
            place = ROOT / program.removesuffix(".py").replace(".", "/")
            file = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
            around = (
                [*place.rglob("*.py")] if place.is_dir() else [file, *file.parent.glob("shown.py")]
            )
            code = "".join(each.read_text() for each in around if each.is_file())
            options = re.findall(r"(--[\w-]+)", rest)
            if not file.is_file() or not all(f'"{each}' in code for each in options):
                wrong.append(text)
    assert wrong == []


@pytest.mark.parametrize("name", NAMES)
def test_a_target_of_make_that_is_named_exists(name):
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"\$\((?:or \$\()?(?:if \$\()?(\w+)", makefile)) | {
        "PYTHON",
        "SWEEP",
    }
    for text in document(name).typed():
        for target, rest in re.findall(r"(?:^|&& )make ([a-z-]+)((?: [A-Z]+=\S+)*)", text):
            assert target in targets, text
            assert set(re.findall(r"([A-Z]+)=", rest)) <= variables, text


def test_make_help_lists_every_target():
    makefile = (ROOT / "Makefile").read_text()
    described = re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE)
    assert described == re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_that_is_typed_exists(name):
    keys = {"run", "data", "search", "trials", "processes", "hydra/launcher"}
    for file in [ROOT / "params.yaml", *ROOT.glob("conf/**/*.yaml")]:
        keys |= config.flat(OmegaConf.to_container(OmegaConf.load(file))).keys()
    typed = [
        key
        for text in document(name).typed()
        if re.search(r"python (train\.py|-m pipeline\.)", text)
        for key in re.findall(r"(?<= )([a-z][a-z_./]*)=", text)
    ]
    assert {key for key in typed if not key.startswith("hydra.")} - keys == {
        key for key in typed if key == "key"
    }


@functools.cache
def routes():
    """Return pattern, methods (`WS` of a socket, none of a folder) and template of each route."""
    found = []
    for route in create_app(Settings.model_construct()).routes:
        if isinstance(route, Mount):
            found.append((re.compile(rf"{route.path}/.*"), set(), route.path))
        else:
            methods = getattr(route, "methods", None) or {"WS"}
            found.append((re.compile(route.path_regex), set(methods), route.path))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_an_endpoint_that_is_named_exists(name):
    wrong = []
    for span in document(name).spans():
        found = re.fullmatch(r"(?:(GET|POST|WS) )?(/[^\s?]*?)(…?)(?:\?.*)?", span)
        if found and not ELSEWHERE.fullmatch(found[2]):
            method, path, more = found.groups()
            if not any(
                (not method or method in methods)
                and (pattern.fullmatch(path) or (more and template.startswith(path)))
                for pattern, methods, template in routes()
            ):
                wrong.append(span)
    assert wrong == []


def test_every_endpoint_is_in_the_table_of_the_api():
    head = document("docs/API.md").text.split("\n## ")[0]
    for _, methods, template in routes():
        for method in methods - {"HEAD"}:
            shown = "(GET )?" if method == "GET" else f"{method} "
            assert re.search(f"`{shown}{re.escape(template)}`", head), template


@pytest.mark.parametrize("name", NAMES)
def test_a_variable_field_or_metric_that_is_named_exists(name):
    """Every span that is written like a name stands somewhere in the code or the manifests."""
    named = {
        match[1]
        for span in document(name).spans()
        if (
            match := re.fullmatch(
                r"([a-z][a-z0-9]*(?:_[a-z0-9]+)+|[A-Z]+(?:_[A-Z]+)+)(?:\{.*\}|=.*)?", span
            )
        )
        and not span.startswith("test_")
    }
    short = {re.sub(r"^pipeline_|_(total|bucket|sum|count)$", "", each): each for each in named}
    missing = {each for key, each in short.items() if not {key, each} & (words() | THEIRS)}
    assert {each for each in missing if each.lower() not in Settings.model_fields} == set()


def test_documents_name_what_there_is():
    """The patterns of this module still find something to check."""
    texts = [text for each in documents() for text in each.typed()]
    for pattern in (
        "python -m pipeline",
        "make repro",
        "/predict",
        "API_KEYS",
        "run=3",
        "conf/run",
    ):
        assert any(pattern in text for text in texts), pattern
