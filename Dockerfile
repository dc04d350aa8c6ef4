# The service (target `serve`, the default) and the pipeline (target `trainer`): docs/DEPLOYMENT.md.
ARG BASE=docker.io/library/python:3.11-slim-bookworm
# A folder of models/ with model.tflite and model.json: baked into the image. Else the registry is followed.
ARG MODEL_DIR=

# ---- What the service needs, from the lock file; nothing is compiled.
FROM ${BASE} AS packages
# An index of your own; or give the build a secret `pipconf`, which is mounted as /etc/pip.conf.
ARG PIP_INDEX_URL
COPY requirements/serve.txt /tmp/
RUN --mount=type=secret,id=pipconf,target=/etc/pip.conf \
    python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv/bin/python install --quiet --no-cache-dir --no-deps \
      --no-compile --only-binary :all: --require-hashes --requirement /tmp/serve.txt \
 && find /opt/venv \( -name tests -o -name include -o -name f2py -o -name distutils -o -name '*.py[ix]' \
      -o -name '*.pxd' -o -name '*.proto' -o -name 'libLiteRtWebGpu*' -o -path '*/ai_edge_litert/tools' \
      -o -path '*/ai_edge_litert/vendors' -o -path '*/databricks/sdk/service' \) -prune -exec rm -rf {} +
# Bytecode of what is imported, not of all: the root cannot be written later.
WORKDIR /app
COPY serve ./serve
RUN /opt/venv/bin/python -c "import serve.__main__, serve.client, serve.http.rate_limit, limits.aio.storage, \
      mlflow.artifacts, mlflow.store.model_registry.rest_store, \
      mlflow.store.model_registry.sqlalchemy_store, mlflow.store.tracking.sqlalchemy_store, \
      mlflow.store.artifact.mlflow_artifacts_repo"

# ---- The service, which follows the registry.
FROM ${BASE} AS registered
RUN useradd --uid 1000 --no-create-home --home-dir /state --shell /usr/sbin/nologin digits \
 && install -d -o 1000 -g 1000 /state
COPY --from=packages /opt/venv /opt/venv
COPY --from=packages /app /app
WORKDIR /app
# The root need not be writable: all that changes is under /state and /tmp.
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp \
    API_HOST=0.0.0.0 API_PORT=8000 API_WORKERS=1 STATE_DIR=/state LOG_FORMAT=json \
    MODEL_URI=models:/mnist-classifier@champion
USER 1000
VOLUME /state
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"API_PORT\"]}/health/ready', timeout=2)"]
CMD ["python", "-m", "serve"]

# ---- The same with its model inside; needs no registry.
FROM registered AS registered-baked
ARG MODEL_DIR
COPY ${MODEL_DIR}/ /model/
ENV MODEL_URI=/model

# ---- The pipeline: `dvc repro && python -m pipeline.register`, in a repository of its own; and the
# drift job, whose report goes to /report.
FROM ${BASE} AS trainer
ARG PIP_INDEX_URL
# A pinned package of Debian is gone after its next update.
# hadolint ignore=DL3008
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends git \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 1000 --create-home --shell /usr/sbin/nologin digits \
 && install -d -o 1000 -g 1000 /work /report
WORKDIR /work
COPY requirements/train.txt ./requirements/
# One package, Hydra's parser, comes as source alone: pure Python, checked by its hash as the others are.
RUN --mount=type=secret,id=pipconf,target=/etc/pip.conf \
    python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv/bin/python install --quiet --no-cache-dir --no-deps \
      --only-binary :all: --no-binary antlr4-python3-runtime --require-hashes \
      --requirement requirements/train.txt
COPY .dvcignore .gitignore dvc.lock dvc.yaml params.yaml train.py ./
COPY .dvc/config ./.dvc/
COPY conf ./conf
COPY monitoring ./monitoring
COPY pipeline ./pipeline
COPY serve ./serve
# A new volume is given the owner of the folder that it is mounted on.
RUN install -d .dvc/cache reports \
 && chown -R 1000:1000 /work
ARG VERSION=0
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="digit-platform-trainer" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
USER 1000
# DVC's experiments need a commit to start from.
RUN git init --quiet --initial-branch main \
 && git config user.name trainer && git config user.email trainer@localhost \
 && git add --all && git commit --quiet --message "image of ${COMMIT}"
CMD ["sh", "-c", "dvc repro && exec python -m pipeline.register"]

# ---- Last, so that it is what is built where no target is named.
# hadolint ignore=DL3006
FROM registered${MODEL_DIR:+-baked} AS serve
ARG VERSION=0
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="digit-platform" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"
ENV COMMIT=${COMMIT}
