"""A team shares by the blocks of docs/SHARING.md, through a Git and a DVC remote."""

import shutil
import subprocess
import sys

import pytest
import requests
from support.alerting import free_port
from support.clones import Clone
from support.documents import ROOT, document
from support.processes import until

BLOCKS = [each.code for each in document("docs/SHARING.md").blocks()]
# The first stage takes no time and says that it ran. DVC's run cache has it, as Git has no output.
PIPELINE = """\
stages:
  train:
    cmd: sh train.sh
    deps: [train.sh]
    params: [seed]
    outs: [model, curve.csv]
  compare:
    cmd: grep -o '0[.].*' curve.csv | tail -n 1 | sed 's/.*/{"accuracy":&}/' > metrics.json
    deps: [curve.csv]
    outs: [metrics.json: {cache: false}]
metrics: [metrics.json]
plots: [curve.csv: {x: step, y: accuracy}]
"""
TRAIN = """\
echo trained >> "$DVC_ROOT/trained.log"
seed=$(sed -n 's/^seed: //p' params.yaml)
echo "weights $seed" > model
printf 'step,accuracy\\n1,0.5\\n2,0.%s\\n' "$seed" > curve.csv
"""


class Member(Clone):
    """A clone of the team's repository; `names` has what to put for the names in the blocks."""

    def __init__(self, folder, names):
        super().__init__(folder)
        self.names = names

    def set_up(self):
        self.run("git", "config", "user.name", "Test")
        self.run("git", "config", "user.email", "test@localhost")

    def type(self, part, **options):
        """Types the block that has this part."""
        (code,) = [each for each in BLOCKS if part in each]
        for name, value in self.names.items():
            code = code.replace(name, value)
        return self.run("bash", "-ec", code, **options)

    def build(self, seed):
        self.pick("seed", seed)
        self.type("dvc repro\ngit commit")

    def has_trained(self):
        return (self.folder / "trained.log").exists()


class Team:
    """An author who has built and shared a pipeline."""

    def __init__(self, folder, s3):
        hub = folder / "hub.git"
        self.hub, self.s3 = str(hub), s3
        self.names = {"/srv/digits": str(folder / "storage"), "NAME": "louder"}
        if s3:
            self.names |= {"BUCKET": "team", "https://minio.example.org:9000": s3}
        self.author = Member(folder / "author", self.names)
        self.author.folder.mkdir()
        self.author.run("git", "init", "-q", "--bare", "-b", "main", self.hub)
        self.author.run("git", "init", "-q", "-b", "main")
        self.author.run("git", "remote", "add", "origin", self.hub)
        self.author.set_up()
        self.author.run("dvc", "init", "-q")
        shutil.copy(ROOT / ".dvc/config", self.author.folder / ".dvc")
        files = {"dvc.yaml": PIPELINE, "train.sh": TRAIN, "params.yaml": "seed: 0\n"}
        files[".gitignore"] = "/build/\n/curve.csv\n/model\n/trained.log\n"
        for name, text in files.items():
            (self.author.folder / name).write_text(text)
        (self.author.folder / "deploy").mkdir()
        shutil.copy(ROOT / "deploy/review.sh", self.author.folder / "deploy")
        self.author.run("dvc", "repro")
        self.author.commit("no remote yet")
        self.author.run("git", "push", "-q", "-u", "origin", "main")
        self.share()

    def share(self):
        if self.s3:
            self.author.type("team s3://")
            self.author.type("team endpointurl")
            self.author.type("--local team access_key_id")
        else:
            self.author.type("team /srv/")
        self.author.type("team verify")
        self.author.build(7)

    def joined(self, folder, *options):
        """Another member, who has the Git remote and, on S3, credentials."""
        member = Member(folder / "member", self.names)
        address = f"file://{self.hub}"
        self.author.run("git", "clone", "-q", *options, address, str(member.folder))
        member.set_up()
        if self.s3:
            member.type("--local team access_key_id")
        return member


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """The address of a server of S3 that has a bucket."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]

    def made():
        try:
            return requests.put(f"{url}/team", timeout=30).ok
        except requests.ConnectionError:
            assert server.poll() is None, "the server has ended"
            return False

    with (tmp_path_factory.mktemp("s3") / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until(made, "a bucket")
        yield url
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def on_s3(s3, tmp_path_factory):
    return Team(tmp_path_factory.mktemp("on_s3"), s3)


@pytest.fixture(scope="module")
def in_folder(tmp_path_factory):
    return Team(tmp_path_factory.mktemp("in_folder"), None)


@pytest.fixture(params=["in_folder", "on_s3"])
def team(request):
    return request.getfixturevalue(request.param)


def test_what_one_builds_the_others_pull(team, tmp_path):
    member = team.joined(tmp_path)
    team.author.build(8)
    member.type("git pull")
    assert member.read("model") == "weights 8\n"
    member.pick("seed", 7)  # the author's build before
    member.run("dvc", "repro", "--pull")
    assert member.read("model") == "weights 7\n"
    assert not member.has_trained()


def test_an_experiment_is_pushed_listed_pulled_and_removed(on_s3, tmp_path):
    author = on_s3.author
    author.run("dvc", "exp", "run", "--name", "louder", "-S", "seed=9")
    author.type("exp push")
    author.run("git", "checkout", "-q", "--force", "HEAD")
    member = on_s3.joined(tmp_path)
    assert "louder" in member.type("exp list")  # and pulls it
    member.run("dvc", "exp", "apply", "louder")
    assert member.read("model") == "weights 9\n"
    assert not member.has_trained()
    member.type("exp remove")
    assert "louder" not in member.run("dvc", "exp", "list", "--all-commits", "origin")


def test_git_knows_where_the_bucket_is_but_no_credentials(on_s3, tmp_path):
    history = on_s3.author.run("git", "log", "--patch", "--all")
    assert "s3://team/digits" in history
    assert "_KEY" not in history
    assert "SECRET_KEY" in on_s3.author.read(".dvc/config.local")
    member = on_s3.joined(tmp_path)
    first = member.run("git", "rev-list", "--max-parents=0", "HEAD").strip()
    compare = "dvc", "metrics", "diff", first
    assert "expected 'url'" in member.run(*compare)  # of the remote, which was not there yet
    member.run("dvc", "remote", "add", "--local", "--force", "team", "s3://team/digits")
    member.type("--local team access_key_id")
    assert "expected 'url'" not in member.run(*compare)


def test_a_file_that_was_replaced_in_the_remote_is_refused(in_folder, tmp_path):
    storage = tmp_path / "storage"
    shutil.copytree(in_folder.names["/srv/digits"], storage)
    member = in_folder.joined(tmp_path)
    member.run("dvc", "remote", "modify", "--local", "team", "url", str(storage))
    seed = member.read("params.yaml").removeprefix("seed: ")
    files = [each for each in storage.rglob("*") if each.is_file()]
    (file,) = [each for each in files if each.read_text() == f"weights {seed}"]
    file.chmod(0o644)
    file.write_text("other weights\n")
    member.run("dvc", "pull", "model", fails=True)
    assert not (member.folder / "model").exists()


def test_a_review_has_tables_plots_and_what_was_not_rebuilt(in_folder, tmp_path):
    before = in_folder.author.read("params.yaml")[-2]
    in_folder.author.build(6)
    member = in_folder.joined(tmp_path, "--depth=2")  # as the workflow does
    member.run("deploy/review.sh", "HEAD^1")
    figures = member.read("build/review/figures.md")
    assert f"| metrics.json | accuracy | 0.{before} " in figures
    assert f"| params.yaml | seed    | {before} " in figures
    assert "Not rebuilt" not in figures
    plots = member.read("build/review/index.html")
    assert f'"accuracy": "0.{before}"' in plots
    assert '"accuracy": "0.6"' in plots

    member.run("dvc", "remote", "remove", "team")
    member.commit("no remote")
    member.edit("train.sh", "weights", "heavier weights")
    member.run("deploy/review.sh", "HEAD")
    figures = member.read("build/review/figures.md")
    assert figures.count("No difference.") == 2
    assert "- `train.sh`" in figures.partition("Not rebuilt")[2]
    assert not (member.folder / "build/review/index.html").exists()
    member.run("deploy/review.sh", "nowhere", fails=True)
