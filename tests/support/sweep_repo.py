"""A small repository to sweep in: Git and DVC are real, one quick stage stands for the pipeline."""

import re
import shutil
import subprocess
from contextlib import chdir, contextmanager

from dvc.repo import Repo
from omegaconf import OmegaConf

from pipeline import config
from pipeline.config import CONF
from pipeline.sweep import overrides

DVC_YAML = """\
stages:
  all:
    cmd: python stage.py
    deps: [conf, stage.py]
    params: [data, runs, seed]
    outs:
      - models/runs
      - reports/evaluate
      - reports/train
      - reports/metrics.json: {cache: false}
      - reports/tracked.json: {cache: false}
metrics: [reports/metrics.json]
"""
# What it does depends on `epochs`; more of them give a better model.
STAGE = """\
import json, os, pathlib, signal, time
from omegaconf import OmegaConf

picks = OmegaConf.load("params.yaml")
run = picks.runs[0]
epochs = OmegaConf.load(f"conf/run/{run}.yaml").epochs
print(f"epoch 1/{epochs}  train 0.5", flush=True)
if epochs == 40:
    raise ValueError("the kernel does not fit")
if epochs == 41:
    os.kill(os.getpid(), signal.SIGKILL)
if epochs == 42:
    pathlib.Path(os.environ["DVC_ROOT"], "logs", "waits").write_text(str(os.getpid()))
    time.sleep(600)
for folder in ("models/runs", "reports/evaluate", "reports/train"):
    path = pathlib.Path(folder, str(run), "made")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{picks.seed} {epochs}")
figures = {"run": run, "val_accuracy": 0.9 + epochs / 1000, "val_loss": 0.5}
pathlib.Path("reports/metrics.json").write_text(json.dumps(figures))
digests = {str(run): f"digest-{run}-{picks.seed}-{epochs}"}
pathlib.Path("reports/tracked.json").write_text(json.dumps(digests))
"""
IGNORED = """\
/.checkpoints/
/logs/
/mlartifacts/
/mlflow.db
/models/
/reports/evaluate/
/reports/train/
__pycache__/
"""


class GitFolder:
    """A new Git repository."""

    def __init__(self, folder):
        self.folder = folder
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.name", "Test")
        self.git("config", "user.email", "test@localhost")

    def git(self, *arguments):
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self, message):
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")


class Repository(GitFolder):
    """A repository with the settings of the real one; `folder` must be the working directory."""

    def __init__(self, folder):
        super().__init__(folder)
        shutil.copytree(CONF, folder / "conf")
        shutil.copy(CONF.parent / "dvc.yaml", folder)
        (folder / ".gitignore").write_text(IGNORED)
        self.commit("settings")

    def edit(self, name, key, value):
        """Gives a setting of a file another value, wherever the key stands."""
        path = self.folder / name
        path.write_text(edited(path.read_text(), key, value))

    def with_dvc(self):
        """Adds the stage."""
        Repo.init(str(self.folder)).close()
        (self.folder / "dvc.yaml").write_text(DVC_YAML)
        (self.folder / "stage.py").write_text(STAGE)
        self.commit("a stage")
        return self

    def experiment(self, name, changed):
        """A commit of HEAD with other files, by path, under the name that DVC would give it."""
        base = self.git("rev-parse", "HEAD")
        for path, content in changed.items():
            place = self.folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content)
            self.git("add", "--force", str(place))
        tree = self.git("write-tree")
        self.git("rm", "-q", "-r", "--force", "--ignore-unmatch", "reports")
        self.git("reset", "-q", "--hard")
        commit = self.git("commit-tree", tree, "-p", base, "-m", name)
        self.git("update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", commit)
        return commit


def edited(text, key, value):
    """The text of a settings file with another value for that key."""
    changed, count = re.subn(rf"^(\s*{key}:) *[^\s#]+", rf"\1 {value}", text, flags=re.M)
    assert count == 1, f"{key} stands there {count} times"
    return changed


def conf(run, key):
    """What `conf/run/<run>.yaml` says."""
    return OmegaConf.select(OmegaConf.load(CONF / "run" / f"{run}.yaml"), key)


@contextmanager
def inside(folder):
    """A repository in `folder`, which is the working directory meanwhile."""
    shutil.copy(CONF.parent / config.PARAMS, folder)
    with chdir(folder):
        yield Repository(folder)


def jobs(*typed):
    """The jobs of `python train.py <typed>`."""
    return overrides.jobs(config.arguments(list(typed), OmegaConf.create()))
