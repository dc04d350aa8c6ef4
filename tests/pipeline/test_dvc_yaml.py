"""dvc.yaml: its stages, what they depend on, and where they leave what they make."""

import re
from pathlib import Path

import grimp
import pytest
import yaml
from support.clones import cloned, tracked

from pipeline.config import paths

ROOT = Path(__file__).parents[2]
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES = list(DVC["stages"])


@pytest.fixture(scope="module")
def imports():
    return grimp.build_graph(
        "pipeline", "serve", exclude_type_checking_imports=True, cache_dir=None
    )


def test_stages_come_in_the_promised_order():
    assert STAGES == ["fetch", "preprocess", "likelihood", "train", "evaluate", "compare", "track"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_that_it_runs(imports, stage):
    """Each module lies in one of the deps, and each dep holds a module that runs."""
    modules = imports.find_upstream_modules(f"pipeline.{stage}") | {f"pipeline.{stage}"}
    packages = {module for module in modules if (ROOT / module.replace(".", "/")).is_dir()}
    needed = {
        f"{module.replace('.', '/')}{'/__init__' if module in packages else ''}.py"
        for module in modules - {"pipeline", "serve"}
    }
    deps = {dep for dep in DVC["stages"][stage]["deps"] if dep.startswith(("pipeline", "serve"))}
    held = {dep: {file for file in needed if f"{file}/".startswith(f"{dep}/")} for dep in deps}
    assert all(held.values()), held
    assert set().union(*held.values()) == needed


def test_how_picture_files_are_read_rebuilds_only_what_reads_them():
    """Where data have no picture files, that gives the same bytes, and DVC stops there."""
    reading = {
        stage
        for stage in STAGES
        for dep in DVC["stages"][stage]["deps"]
        if "serve/decoding".startswith(dep) or "decoding" in dep
    }
    assert reading == {"preprocess"}


@pytest.mark.parametrize("stage", ["preprocess", "likelihood", "train", "evaluate", "compare"])
def test_a_stage_that_computes_depends_on_the_libraries(stage):
    assert "requirements/train.txt" in DVC["stages"][stage]["deps"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_the_module_of_its_name(stage):
    assert DVC["stages"][stage]["cmd"].startswith(f"python -m pipeline.{stage} ")
    assert "&&" not in DVC["stages"][stage]["cmd"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_again_when_the_data_set_is_described_otherwise(stage):
    """Its classes and augmentation decide models whose images stay the same."""
    assert "conf/data/${data}.yaml" in DVC["stages"][stage]["deps"]


def test_paths_are_those_of_dvc_yaml():
    def outs(stage):
        for out in DVC["stages"][stage]["outs"]:
            path = next(iter(out)) if isinstance(out, dict) else out
            yield re.sub(r"\$\{(item\.)?(\w+)\}", r"<\2>", path)

    data, run = "<data>", "<run>"
    assert list(outs("fetch")) == [str(paths.raw(data))]
    assert list(outs("preprocess")) == [str(paths.processed(data)), str(paths.DATA_REPORT)]
    assert list(outs("likelihood")) == [str(paths.LIKELIHOOD), str(paths.ood_examples(data))]
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


def test_a_clone_has_the_same_bytes_whatever_gits_line_ends_are(tmp_path):
    (tmp_path / "source").mkdir()
    source = cloned(tmp_path / "source")
    folder = tmp_path / "clone"
    source.run("git", "clone", "-q", "-c", "core.autocrlf=true", ".", str(folder))
    differing = [
        name for name in tracked() if (folder / name).read_bytes() != (ROOT / name).read_bytes()
    ]
    assert differing == []
