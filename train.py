"""Train runs as DVC experiments: `python train.py run=2 epochs=3`, `python train.py -m run=1,2,3`.

Each job is one experiment in a temporary copy; the workspace stays as it is. Settings are the keys
of `conf/run/<n>.yaml` and `params.yaml`, and `data.*`; `--help` lists them.
"""

import sys

from pipeline.config import PipelineError
from pipeline.config.startup import start_program

if __name__ == "__main__":
    start_program()
    from pipeline.sweep import cli  # imports MLflow

    try:
        sys.exit(cli.main(sys.argv[1:]))
    except PipelineError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
