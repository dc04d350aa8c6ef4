"""What the documents name exists: files, commands, settings, endpoints, variables, metrics."""

import re
import subprocess

import pytest
import yaml
from omegaconf import OmegaConf
from starlette.routing import Mount
from support.documents import ROOT, document, documents, folders, tracked, words

from pipeline import config
from serve.app import create_app
from serve.settings import Settings

# Paths that a command or the reader makes; what lies below one exists with it.
MADE = {
    *(".venv", ".checkpoints", ".demo", ".env", ".state", "build", "data/raw", "mlartifacts"),
    *("data/feedback.npz", "data/feedback.npz.dvc", "logs/search", "logs/sweeps"),
    *("reports/experiments.html", "reports/score", "reports/search", "reports/timings.json"),
    *(
        "conf/run/5.yaml",
        "conf/data/few.yaml",
        "conf/data/forms.yaml",
        "data/shapes",
        ".dvc/config.local",
    ),
}
# Names of other programs, of the rules, and one that the exporter puts together.
THEIRS = {"GITHUB_TOKEN", "ON_ERROR_STOP", "RAY_ADDRESS", "n_jobs", "parentbased_traceidratio"}
THEIRS |= {"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_TRACES_SAMPLER"}
THEIRS |= {"OTEL_TRACES_SAMPLER_ARG", "pg_dump", "pipeline_validation_accuracy", "runbook_url"}
THEIRS |= {"probe_success", "access_key_id", "secret_access_key"}
OURS = ("bench", "deploy", "docs", "monitoring", "pipeline", "serve", "train")
# Tops of paths that are no endpoints: folders of the machine, pages of Prometheus and MLflow.
ELSEWHERE = re.compile(r"/(state|tmp|etc|dev|mlflow|backups|trainer|rules|-|api/2\.0)(/.*)?")
NAME = re.compile(r"([a-z][a-z0-9]*(?:_[a-z0-9]+)+|[A-Z]+(?:_[A-Z]+)+)(?:\{.*\}|=.*)?")
TYPED = [(each.name, text) for each in documents() for text in each.typed()]
SPANS = [(each.name, span) for each in documents() for span in each.spans()]
MAKEFILE = (ROOT / "Makefile").read_text()


def test_a_path_that_is_named_exists():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    outs = [out for stage in stages.values() for out in stage["outs"]]
    outs = [out if isinstance(out, str) else next(iter(out)) for out in outs]
    made = {*MADE, *(re.sub(r"\$\{[^}]*\}", "n", out) for out in outs)}
    known = {*tracked(), *folders(), *made}
    tops = {path.split("/")[0] for path in known}

    def exists(path):
        """`<n>` and `*` stand for any name."""
        if any(re.sub(r"<[^>]+>", "n", path).startswith(f"{each}/") for each in made):
            return True
        pattern = re.compile("[^/]+".join(map(re.escape, re.split(r"<[^>]+>|\*", path))))
        return path in known or any(map(pattern.fullmatch, known))

    named = {
        (name, word.removeprefix("@").removeprefix("./").rstrip("/…"))
        for name, text in TYPED
        for word in re.split(r"[\s'\"=,;()]+|:(?!//)", text)
    }
    paths = {(name, path) for name, path in named if "/" in path and path.split("/")[0] in tops}
    assert len(paths) > 100
    assert {(name, path) for name, path in paths if not exists(path)} == set()


def test_the_tree_in_the_architecture_is_the_tree_on_disk():
    tree = document("docs/ARCHITECTURE.md").text.partition("\n## Where things are\n")[2]
    listed = set(re.findall(r"^(\S+?)/? {2,}\S", tree.partition("\n## ")[0], re.MULTILINE))
    wanted = {name.split("/")[0] for name in tracked() if "/" in name and name[0] != "."}
    assert wanted - {"data"} <= listed
    assert all((ROOT / name).exists() for name in listed)


def programs():
    """Yield document, file and options of each `python -m MODULE` or `python FILE` of ours."""
    for name, text in TYPED:
        for program, rest in re.findall(r"python (?:-m )?([\w./]*\w)(?![\w.<…])([^|;&]*)", text):
            if program.split(".")[0] in OURS:
                place = ROOT / program.removesuffix(".py").replace(".", "/")
                file = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
                yield name, file, set(re.findall(r"--[\w-]+", rest))


def test_a_program_that_is_named_has_its_options():
    wrong = []
    assert len(list(programs())) > 30
    for name, file, options in programs():
        # The options of a folder's program may stand in any of its modules.
        files = file.parent.glob("*.py") if options else [file]
        code = "".join(each.read_text() for each in files if each.is_file())
        if not file.is_file() or not all(f'"{option}"' in code for option in options):
            wrong.append((name, file.relative_to(ROOT), options))
    assert wrong == []


def test_a_target_of_make_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    variables = set(re.findall(r"\$\((?:or \$\()?(?:if \$\()?(\w+)", MAKEFILE))
    pattern = re.compile(r"(?:^|&& )make ([a-z-]+)((?: [A-Z]+=\S+)*)")
    named = [(name, *found) for name, text in TYPED for found in pattern.findall(text)]
    assert {target for _, target, _ in named} >= {"demo", "repro", "serve", "test"}
    assert [(name, target) for name, target, _ in named if target not in targets] == []
    assert set(re.findall(r"([A-Z]+)=", " ".join(rest for *_, rest in named))) <= variables


def test_make_help_lists_every_target():
    described = re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE)
    assert described == re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)


def test_make_help_fits_a_terminal_of_80_columns():
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line for line in listed.stdout.splitlines() if len(line) > 80] == []


def test_a_setting_that_is_typed_exists():
    keys = {"run", "data", "search", "trials", "processes", "key", "hydra/launcher"}
    for file in [ROOT / "params.yaml", *ROOT.glob("conf/**/*.yaml")]:
        keys |= config.flat(OmegaConf.to_container(OmegaConf.load(file))).keys()
    program = re.compile(r"python (?:train\.py|-m pipeline\.)")
    typed = {
        (name, key)
        for name, text in TYPED
        if program.search(text)
        for key in re.findall(r"(?<= )([a-z][a-z_./]*)=", text)
    }
    assert len(typed) > 5
    assert {(name, key) for name, key in typed if key not in keys} == set()


@pytest.fixture(scope="module")
def routes():
    """Pattern, methods (`WS` of a socket, none of a folder) and template of each route."""
    found = []
    for route in create_app(Settings.model_construct()).routes:
        if isinstance(route, Mount):
            found.append((re.compile(rf"{route.path}/.*"), set(), route.path))
        else:
            methods = getattr(route, "methods", None) or {"WS"}
            found.append((re.compile(route.path_regex), set(methods), route.path))
    return found


def test_an_endpoint_that_is_named_exists(routes):
    def exists(method, path):
        return any(
            (not method or method in methods) and pattern.fullmatch(path)
            for pattern, methods, _ in routes
        )

    shown = re.compile(r"(?:(GET|POST|WS) )?(/[^\s?…]*)(?:\?.*)?")
    named = [(name, *found.groups()) for name, span in SPANS if (found := shown.fullmatch(span))]
    ours = [each for each in named if not ELSEWHERE.fullmatch(each[2])]
    assert len(ours) > 20
    assert [each for each in ours if not exists(*each[1:])] == []


def test_every_endpoint_is_in_the_table_of_the_api(routes):
    head = document("docs/API.md").text.split("\n## ")[0]
    for _, methods, template in routes:
        for method in methods - {"HEAD"}:
            shown = "(GET )?" if method == "GET" else f"{method} "
            assert re.search(f"`{shown}{re.escape(template)}`", head), template


def test_a_variable_field_or_metric_that_is_named_exists():
    """Every span that is written like a name stands in the code or the manifests."""
    known = words() | THEIRS | {name.upper() for name in Settings.model_fields}
    named = {(name, found[1]) for name, span in SPANS if (found := NAME.fullmatch(span))}
    assert len(named) > 100
    ends = re.compile(r"^(pipeline|drift)_|_(total|bucket|sum|count)$")
    assert {each for each in named if not {each[1], ends.sub("", each[1])} & known} == set()
