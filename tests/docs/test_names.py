"""What the docs name is in the code: modules, options, targets, settings, variables, metrics."""

import ast
import functools
import importlib.util
import re
import shlex

import pytest
from dvc.cli import DvcParserError
from dvc.cli.parser import get_main_parser
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from support.documents import ROOT, commands, document, documents, sources, words

from docs.figures import derived
from monitoring import pipeline_exporter
from monitoring.drift.prometheus_gauges import Gauges
from pipeline import config
from pipeline.search.plan import Search
from serve.settings import Settings

OURS = ("bench", "deploy", "docs", "monitoring", "pipeline", "serve")
# Names of other programs, which nothing of ours says.
THEIRS = {
    "GITHUB_TOKEN": "GitHub's variable",
    "ON_ERROR_STOP": "a variable of psql",
    "OTEL_EXPORTER_OTLP_HEADERS": "OpenTelemetry's variable",
    "OTEL_RESOURCE_ATTRIBUTES": "OpenTelemetry's variable",
    "OTEL_TRACES_SAMPLER": "OpenTelemetry's variable",
    "OTEL_TRACES_SAMPLER_ARG": "OpenTelemetry's variable",
    "RAY_ADDRESS": "Ray's variable",
    "model.digest": "a tag in MLflow, which pipeline/registry/mlflow_runs.py sets",
    "model.predict": "Keras' function",
    "n_jobs": "joblib's argument",
    "parentbased_traceidratio": "OpenTelemetry's sampler",
    "pg_dump": "PostgreSQL's program",
}
# Of what a recipe of CONTRIBUTING.md makes.
RECIPES = {"run=4", "data=few"}
_PYTHON = re.compile(r"python (?:-m (?P<module>[\w.]+)|(?P<file>\S+\.py))(?P<rest>[^|;&]*)")


def calls():
    """Each Python program that the docs start: its module or file, and what follows."""
    for _, text in commands():
        for found in _PYTHON.finditer(text):
            yield found["module"] or found["file"], found["rest"].split()


def source(program):
    """The source of a program of ours and of what it imports of ours by itself."""
    code = own_source(program)
    imported = re.findall(rf"^from ((?:{'|'.join(OURS)})[\w.]*) import", code, re.MULTILINE)
    return code + "".join(map(own_source, imported))


def own_source(program):
    """The source of a module of ours; of a package all of it."""
    if program.endswith(".py"):
        return (ROOT / program).read_text()
    place = ROOT / program.replace(".", "/")
    files = sorted(place.glob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    return "".join(file.read_text() for file in files)


def test_a_module_that_is_named_can_be_run():
    wrong = set()
    for program in {program for program, _ in calls() if not program.endswith(".")}:
        place = ROOT / program.replace(".", "/")
        ours = program.split(".")[0] in OURS or program.endswith(".py")
        if not ours:
            if importlib.util.find_spec(program) is None:
                wrong.add(program)
        elif not any(
            path.is_file()
            for path in (ROOT / program, place.with_suffix(".py"), place / "__main__.py")
        ):
            wrong.add(program)
    assert wrong == set()


@functools.cache
def texts_in(code):
    return {
        node.value
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_an_option_of_ours_exists():
    wrong = set()
    for program, rest in calls():
        if program.split(".")[0] not in OURS:
            continue
        options = {word.split("=")[0] for word in rest if word.startswith("--")}
        if options:
            wrong |= {f"{program} {option}" for option in options - texts_in(source(program))}
    assert wrong == set()


def test_an_option_alone_is_one_of_ours_or_was_shown_with_its_program():
    ours = set().union(
        *(texts_in(text) for path, text in sources().items() if path.suffix == ".py")
    )
    shown = {word.split("=")[0] for _, text in commands() if " " in text for word in text.split()}
    alone = {
        text.split("=")[0] for _, text in commands() if text.startswith("--") and " " not in text
    }
    assert {option for option in alone - shown if option not in ours} == set()


def makefile():
    return (ROOT / "Makefile").read_text()


def targets():
    return re.findall(r"^([a-z-]+):", makefile(), re.MULTILINE)


def test_a_make_target_exists():
    named = {
        found
        for _, text in commands()
        for found in re.findall(r"(?:^|&& |; |^[A-Z_]+=\S+ )make ((?!-)[a-z-]+)", text)
    }
    assert named
    assert named <= set(targets())


def test_a_variable_of_make_exists():
    known = set(re.findall(r"\$\((?:or \$\()?(?:if \$\()?(\w+)", makefile()))
    known |= set(re.findall(r"^(?:export )?(\w+) [?:]?=", makefile(), re.MULTILINE))
    named = {
        variable
        for _, text in commands()
        for found in re.findall(r"(?:^|&& )make [a-z-]+((?: [A-Z]\w*=(?:'[^']*'|\S+))+)", text)
        for variable in re.findall(r"([A-Z]\w*)=", found)
    }
    assert named <= known


def test_make_help_lists_every_target():
    described = re.findall(r"^([a-z-]+):.*## ", makefile(), re.MULTILINE)
    assert described == targets()


def dvc_commands():
    found = (
        re.search(r"(?:^|&& |[A-Z_]+=\S+ )(dvc (?:[^|;&']|'[^']*')+)", text)
        for _, text in commands()
    )
    return sorted({match[1].strip() for match in found if match})


@pytest.mark.parametrize("typed", dvc_commands())
def test_dvc_understands(typed):
    typed = [word for word in shlex.split(typed)[1:] if word != "…"]
    # A family of commands, or one whose argument is left out, is named by its first words.
    for more in ([], ["show"], ["status"], ["NAME"]):
        try:
            get_main_parser().parse_args([*typed, *more])
        except DvcParserError:
            continue
        return
    pytest.fail(" ".join(typed))


class Composer:
    """Composes the configuration of a stage, a sweep or a search."""

    def __init__(self):
        config.register_schema()
        ConfigStore.instance().store(name="search_schema", node=Search)

    def check(self, typed, root="config"):
        """Composes with each override's first value; a fault is Hydra's or ours."""
        first = [re.sub(r"=(\[.*\]|[^,]*)(,.*)?$", r"=\1", word) for word in typed]
        picks = OmegaConf.load(ROOT / "params.yaml")
        if root == "search":
            picks = {key: picks[key] for key in ("seed", "threads", "data")}
        given = config.arguments(first, OmegaConf.create(picks))
        with initialize_config_dir(str(config.CONF), version_base="1.3"):
            composed = compose(root, given)
        if root == "config":
            config.resolved(composed, "1")


@pytest.fixture(scope="module")
def composer():
    return Composer()


def overridden():
    """Each set of overrides in the docs, with the configuration that it is for."""
    pair = re.compile(r"[a-z][a-z_]*(?:[./][a-z_]+)*=[^\s…<]+")
    found = {}
    for program, rest in calls():
        if program == "train.py" or program.startswith("pipeline."):
            typed = tuple(
                word
                for word in rest
                if pair.fullmatch(word) and word not in {"key=value", *RECIPES}
            )
            if typed:
                found["search" if program == "pipeline.search" else "config", typed] = None
    searched = re.compile(r"(processes|trials|search)=.*")
    for _, text in commands():
        if pair.fullmatch(text) and text not in RECIPES:
            found["search" if searched.fullmatch(text) else "config", (text,)] = None
    return list(found)


@pytest.mark.parametrize(("root", "typed"), overridden(), ids=str)
def test_a_setting_that_is_typed_exists(composer, root, typed):
    composer.check(typed, root)


def test_a_wrong_setting_is_noticed(composer):
    for typed in (["optimizer.lr=1"], ["epochs=many"], ["hydra/launcher=nobody"]):
        with pytest.raises((HydraException, OmegaConfBaseException, config.PipelineError)):
            composer.check(typed)


def test_a_setting_that_is_named_exists():
    keys = set()
    for file in ROOT.glob("conf/**/*.yaml"):
        plain = OmegaConf.to_container(OmegaConf.load(file))
        keys |= {*config.flat(plain), *(f"{file.parent.name}.{key}" for key in config.flat(plain))}
    sections = {key.rpartition(".")[0] for key in keys if "." in key}
    first = "|".join({section.split(".")[0] for section in sections} - {"hydra"})
    named = {
        text
        for _, text in commands()
        if re.fullmatch(rf"(?:{first})\.[a-z_.*]+", text)
        and not text.endswith((".db", ".json", ".tflite", ".yaml", ".yml"))
    }
    ends = keys | {f"{section}.*" for section in sections}
    assert {name for name in named if name not in ends and name not in THEIRS} == set()


def test_a_setting_of_dvc_exp_run_exists():
    wrong = set()
    for typed in dvc_commands():
        for change in re.findall(r"-S '?([^\s']+)", typed):
            where, _, key = change.partition("=")[0].rpartition(":")
            known = config.flat(
                OmegaConf.to_container(OmegaConf.load(ROOT / (where or "params.yaml")))
            )
            if key not in known:
                wrong.add(change)
    assert wrong == set()


def test_a_variable_exists():
    shout = re.compile(r"(?<![\w<./{:-])\$?\{?([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)\b(?![./])")
    named = {name for _, text in commands() for name in shout.findall(text)}
    settings = {name.upper() for name in Settings.model_fields}
    assert len(named & settings) > 10
    # A name of the service's that the settings no longer have may live on in a manifest.
    assert {name for name in named - settings - words() if name not in THEIRS} == set()


def test_a_name_exists():
    """Metrics, fields, tests' fixtures: whatever is written like one."""
    named = {
        re.sub(r"\{.*\}$", "", text)
        for _, text in commands()
        if re.fullmatch(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+(?:\{.*\})?", text)
        and not text.startswith("test_")
    }
    series = {f"{name}{end}" for name in metrics() for end in ("_bucket", "_sum", "_count")}
    known = words() | metrics() | series
    assert {name for name in named - known if name not in THEIRS} == set()


@functools.cache
def gauges():
    """The gauges of the drift job and of the exporter, each with its labels."""
    exporter = pipeline_exporter.Figures(ROOT / "reports", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "_told", lambda: (0.0, [], {}))  # as a registry that is empty
        found = [*exporter.collect()]
    collectors = Gauges().registry._collector_to_names
    families = {
        "drift": [(collector._name, collector._labelnames) for collector in collectors],
        "pipeline": [(family.name, tuple(family._labelnames)) for family in found],
    }
    return {job: dict(pairs) for job, pairs in families.items()}


@functools.cache
def metrics():
    """The names of the metrics that any program of ours makes."""
    served = {cells[0].strip("`") for cells in derived.metrics().rows}
    return served.union(*gauges().values())


def test_every_metric_is_documented():
    named = {name for document in documents() for name in re.findall(r"\w+", document.text)}
    assert len(metrics()) >= 11 + 6 + 7
    assert metrics() - named == set()


@pytest.mark.parametrize(("job", "heading"), [("drift", "gauge"), ("pipeline", "metric")])
def test_the_table_of_gauges_is_what_the_program_makes(job, heading):
    tables = [rows for _, rows in document("docs/MONITORING.md").tables() if rows[0][0] == heading]
    (rows,) = [rows for rows in tables if f"`{job}_" in rows[1][0]]
    shown = {span for row in rows[1:] for span in re.findall(r"`([^`]+)`", row[0])}
    assert {span.partition("{")[0] for span in shown} == set(gauges()[job])
    for row in rows[1:]:
        for name in re.findall(r"`(\w+)", row[0]):
            for label in gauges()[job][name]:
                assert re.search(rf"\b{label}\b", " ".join(row)), f"{name} has the label {label}"
