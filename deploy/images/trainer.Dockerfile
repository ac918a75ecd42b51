# The batch trainer: trains the adapters of a toolset and publishes them into the adapter store.
ARG PYTHON_TAG=3.11.16-slim-bookworm
# A base made without a registry has no digest: build with --build-arg PYTHON_DIGEST=
ARG PYTHON_DIGEST=@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM python:${PYTHON_TAG}${PYTHON_DIGEST} AS build
WORKDIR /build
COPY deploy/images/install.sh deploy/images/secrets.sh deploy/requirements/images/tools.txt deploy/requirements/images/trainer.txt ./
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=ca --mount=type=secret,id=index sh install.sh trainer torch
COPY deploy/images/toolsets.sh deploy/requirements/images/node.txt ./
COPY deploy/toolsets /toolsets
# Toolsets whose servers are left out, separated by spaces: episodes happen on the real server of what is trained.
ARG WITHOUT="everything git memory monday notion time"
RUN --mount=type=cache,target=/root/.npm --mount=type=cache,target=/root/.cache \
    --mount=type=secret,id=ca --mount=type=secret,id=index sh toolsets.sh $WITHOUT

FROM python:${PYTHON_TAG}${PYTHON_DIGEST}
RUN groupadd --gid 65532 agentflux && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /tmp agentflux
# The empty folders give new volumes their owner.
RUN install -d -o 65532 -g 65532 /var/lib/agentflux /var/lib/agentflux/adapters /var/lib/agentflux/train /models /models/base
COPY --from=build /opt/nodejs/bin/node /usr/local/bin/node
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY deploy/__init__.py deploy/
COPY deploy/images/__init__.py deploy/images/system_sbom.py deploy/images/
RUN python3 -B -m deploy.images.system_sbom /opt/venv/share/sbom/system.cdx.json
COPY --from=build /toolsets deploy/toolsets
COPY services services
COPY trainer trainer
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    AGENTFLUX_SANDBOX_DRIVER=external
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="AgentFlux trainer" \
      org.opencontainers.image.description="Trains selector and argument adapters, and publishes them" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 65532:65532
# A batch job: its exit status is its health.
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "trainer"]
CMD ["--help"]
