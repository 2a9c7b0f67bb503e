# syntax=docker/dockerfile:1
#
# One target for each service, each with no more than it needs: the gateway and the scheduler have no torch.
#
#   docker build --target gateway -t radixmesh-gateway .
#
# Dependencies are installed from a skeleton of the package, before the sources come in: a change of the sources does
# not fetch them again. Their versions are those of constraints.txt, the build backend's too.

ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    HF_HOME=/home/radixmesh/.cache/huggingface
# The cache directories exist and belong to the user, so that fresh volumes mounted there do too.
RUN useradd --create-home --uid 10001 radixmesh \
    && install -d -o radixmesh -g radixmesh /home/radixmesh/.cache /home/radixmesh/.cache/huggingface /models
WORKDIR /home/radixmesh

FROM base AS builder
WORKDIR /build
COPY constraints.txt /wheels/
RUN pip install --no-cache-dir -c /wheels/constraints.txt setuptools

FROM builder AS skeleton
COPY pyproject.toml LICENSE ./
COPY src/radixmesh/__init__.py src/radixmesh/
RUN touch README.md \
    && pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /wheels .

FROM builder AS package
COPY pyproject.toml README.md LICENSE ./
COPY shared shared
COPY services services
COPY src src
RUN pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /wheels .

FROM base AS scheduler-deps
RUN --mount=type=bind,from=skeleton,source=/wheels,target=/wheels --mount=type=cache,target=/root/.cache/pip \
    pip install -c /wheels/constraints.txt "$(echo /wheels/*.whl)"

FROM base AS gateway-deps
RUN --mount=type=bind,from=skeleton,source=/wheels,target=/wheels --mount=type=cache,target=/root/.cache/pip \
    pip install -c /wheels/constraints.txt "$(echo /wheels/*.whl)[gateway]"

FROM base AS tokenizer-deps
RUN --mount=type=bind,from=skeleton,source=/wheels,target=/wheels --mount=type=cache,target=/root/.cache/pip \
    pip install -c /wheels/constraints.txt "$(echo /wheels/*.whl)[tokenizer]"

# g++: the worker compiles its CPU kernels for the very processor it finds.
FROM base AS compiler
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*

FROM compiler AS model-worker-deps
ARG TORCH_INDEX_URL=
RUN --mount=type=bind,from=skeleton,source=/wheels,target=/wheels --mount=type=cache,target=/root/.cache/pip \
    pip install -c /wheels/constraints.txt ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} "$(echo /wheels/*.whl)[worker]"

FROM compiler AS model-worker-cuda-deps
RUN --mount=type=bind,from=skeleton,source=/wheels,target=/wheels --mount=type=cache,target=/root/.cache/pip \
    pip install -c /wheels/constraints.txt "$(echo /wheels/*.whl)[cuda]"

FROM gateway-deps AS gateway
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels pip install --no-deps --force-reinstall /wheels/*.whl
USER radixmesh
EXPOSE 8000 50051
CMD ["radixmesh", "run", "gateway", "--http-host", "0.0.0.0", "--grpc-host", "0.0.0.0"]

FROM tokenizer-deps AS tokenizer
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels pip install --no-deps --force-reinstall /wheels/*.whl
ENV TOKENIZERS_PARALLELISM=false
USER radixmesh
CMD ["radixmesh", "run", "tokenizer"]

FROM tokenizer-deps AS detokenizer
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels pip install --no-deps --force-reinstall /wheels/*.whl
ENV TOKENIZERS_PARALLELISM=false
USER radixmesh
CMD ["radixmesh", "run", "detokenizer"]

FROM scheduler-deps AS scheduler
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels pip install --no-deps --force-reinstall /wheels/*.whl
USER radixmesh
CMD ["radixmesh", "run", "scheduler"]

FROM model-worker-cuda-deps AS model-worker-cuda
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels pip install --no-deps --force-reinstall /wheels/*.whl
USER radixmesh
CMD ["radixmesh", "run", "model-worker"]

FROM model-worker-deps AS model-worker
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels pip install --no-deps --force-reinstall /wheels/*.whl
USER radixmesh
CMD ["radixmesh", "run", "model-worker"]
