"""The shape of the repository: arrows between modules, and files that must agree."""

import re
from pathlib import Path

import grimp
import pytest
import yaml

from pipeline import paths

ROOT = Path(__file__).parents[2]
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES = list(DVC["stages"])
COMMANDS = ["register", "adopt", "compare_experiments", "exps", "feedback", "retrain"]
LOCKS = {
    extra: (ROOT / f"requirements/{extra}.txt").read_text()
    for extra in ("serve", "train", "gpu", "dev")
}


@pytest.fixture(scope="module")
def imports():
    return grimp.build_graph("pipeline", "serve", "monitoring", exclude_type_checking_imports=True)


def test_stages_come_in_the_promised_order():
    assert STAGES == ["fetch", "preprocess", "likelihood", "train", "evaluate", "compare", "track"]


def test_nothing_imports_a_stage(imports):
    for name in STAGES + COMMANDS:
        assert imports.find_modules_that_directly_import(f"pipeline.{name}") == set()


def test_the_service_needs_nothing_of_the_pipeline(imports):
    served = imports.find_descendants("serve")
    assert not {m for s in served for m in imports.find_modules_directly_imported_by(s)} & (
        imports.find_descendants("pipeline") | {"pipeline"}
    )


def test_the_pipeline_uses_only_what_serves_the_model(imports):
    used = {
        imported
        for module in imports.find_descendants("pipeline")
        for imported in imports.find_modules_directly_imported_by(module)
        if imported.startswith("serve")
    }
    # Of the image the data sets need the last step alone: what reads files does not rebuild them.
    # What is written of an evaluation the drift job reads: one module says what it is.
    assert used <= {
        *("serve.image", "serve.placing", "serve.predictor", "serve.feedback", "serve.reference")
    }


def test_nothing_needs_what_watches_it(imports):
    for module in imports.find_descendants("monitoring") | {"monitoring"}:
        importing = imports.find_modules_that_directly_import(module)
        assert {name for name in importing if not name.startswith("monitoring")} == set()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_that_it_runs(imports, stage):
    modules = imports.find_upstream_modules(f"pipeline.{stage}") | {f"pipeline.{stage}"}
    needed = {f"{m.replace('.', '/')}.py" for m in modules - {"pipeline", "serve"}}
    declared = {dep for dep in DVC["stages"][stage]["deps"] if dep.endswith(".py")}
    assert declared == needed


@pytest.mark.parametrize("stage", ["preprocess", "likelihood", "train", "evaluate", "compare"])
def test_a_stage_that_computes_depends_on_the_libraries(stage):
    assert "requirements/train.txt" in DVC["stages"][stage]["deps"]


def test_compare_depends_on_its_templates(imports):
    """Those that the code it runs names, and those that these extend or import."""
    modules = imports.find_upstream_modules("pipeline.compare") | {"pipeline.compare"}
    found = [f"{module.replace('.', '/')}.py" for module in modules - {"pipeline", "serve"}]
    needed = set()
    while found:
        names = re.findall(r'"(\w+\.\w+\.j2)"', (ROOT / found.pop()).read_text())
        new = {f"pipeline/{name}" for name in names} - needed
        needed |= new
        found += new
    assert {"pipeline/page.html.j2", "pipeline/base.html.j2"} < needed
    declared = {dep for dep in DVC["stages"]["compare"]["deps"] if dep.endswith(".j2")}
    assert declared == needed


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_the_module_of_its_name(stage):
    assert DVC["stages"][stage]["cmd"].startswith(f"python -m pipeline.{stage} ")
    assert "&&" not in DVC["stages"][stage]["cmd"]


def test_paths_are_those_of_dvc_yaml():
    def outs(stage):
        for out in DVC["stages"][stage]["outs"]:
            path = next(iter(out)) if isinstance(out, dict) else out
            yield re.sub(r"\$\{(item\.)?(\w+)\}", r"<\2>", path)

    data, run = "<data>", "<run>"
    assert list(outs("fetch")) == [str(paths.raw(data))]
    assert list(outs("preprocess")) == [str(paths.processed(data)), str(paths.DATA_REPORT)]
    assert list(outs("likelihood")) == [str(paths.LIKELIHOOD), str(paths.nondigits(data))]
    assert list(outs("train")) == [str(paths.model(run)), str(paths.curves(run))]
    assert list(outs("evaluate")) == [str(paths.evaluation(run))]
    assert list(outs("compare")) == [
        str(path)
        for path in (
            *(paths.CHAMPION, paths.PLOTS, paths.PAGE),
            *(paths.METRICS, paths.COMPARISON, paths.BEST),
        )
    ]
    assert list(outs("track")) == [str(paths.TRACKED)]


def test_dvc_yaml_fits_two_screens():
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) < 100


@pytest.mark.parametrize("extra", LOCKS)
def test_a_lock_names_no_index_and_hashes_everything(extra):
    lock = LOCKS[extra]
    assert "://" not in lock
    assert "--index" not in lock
    requirements = re.split(r"\n(?=\S)", lock.strip())
    assert requirements
    assert all("--hash=sha256:" in requirement for requirement in requirements)


def pinned(extra):
    """Names and versions; markers say the same in other words from lock to lock."""
    return set(re.findall(r"^([\w.-]+(?:\[[^]]*\])?)==(\S+)", LOCKS[extra], re.MULTILINE))


def test_the_service_is_installed_without_what_trains():
    names = {name for name, _ in pinned("serve")}
    assert {"ai-edge-litert", "numpy", "pillow"} <= names
    unwanted = re.compile("tensorflow|keras|dvc|hydra|mlflow(?!-skinny)|matplotlib|scikit")
    assert not {name for name in names if unwanted.match(name)}


def test_locks_agree_on_versions():
    assert pinned("serve") <= pinned("dev")
    assert pinned("train") <= pinned("dev")


def test_the_gpu_lock_has_one_build_of_tensorflow():
    names = {name for name, _ in pinned("gpu")}
    assert "tensorflow" in names
    assert "tensorflow-cpu" not in names


def test_one_module_reads_the_environment():
    reading = re.compile(r"os\.(getenv|environ\.get|environ\[[^]]*\](?! =))")
    files = [file for package in ("pipeline", "serve") for file in (ROOT / package).rglob("*.py")]
    readers = {file.name for file in files if reading.search(file.read_text())}
    assert readers == {"environment.py"}
