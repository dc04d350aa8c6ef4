from contextlib import chdir

import pytest
from support.sweep_repo import GitFolder

from pipeline.config import PipelineError
from pipeline.storage import dvc_experiments, git


def test_a_shallow_clone_is_refused_until_it_is_whole(tmp_path):
    (tmp_path / "whole").mkdir()
    whole = GitFolder(tmp_path / "whole")
    for message in ("one", "two"):
        whole.commit(message)
    clone = tmp_path / "shallow"
    whole.git("clone", "-q", "--depth", "1", f"file://{whole.folder}", str(clone))
    with chdir(clone):
        with pytest.raises(PipelineError, match="git fetch --unshallow"):
            dvc_experiments.require_possible()
        git.git("fetch", "-q", "--unshallow")
        dvc_experiments.require_possible()
