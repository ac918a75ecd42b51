# The sandbox: MCP servers written for Node.js or Python run inside this container, which is their sandbox (driver `external`).
ARG PYTHON_TAG=3.11.16-slim-bookworm
# A base made without a registry has no digest: build with --build-arg PYTHON_DIGEST=
ARG PYTHON_DIGEST=@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM python:${PYTHON_TAG}${PYTHON_DIGEST} AS build
WORKDIR /build
COPY deploy/images/install.sh deploy/images/secrets.sh deploy/requirements/images/tools.txt deploy/requirements/images/sandbox.txt ./
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=ca --mount=type=secret,id=index sh install.sh sandbox
COPY deploy/images/toolsets.sh deploy/requirements/images/node.txt ./
COPY deploy/toolsets /toolsets
# Toolsets whose servers are left out, separated by spaces: monday's has 300 MB that few need.
ARG WITHOUT="monday"
RUN --mount=type=cache,target=/root/.npm --mount=type=cache,target=/root/.cache \
    --mount=type=secret,id=ca --mount=type=secret,id=index sh toolsets.sh $WITHOUT

FROM python:${PYTHON_TAG}${PYTHON_DIGEST}
RUN groupadd --gid 65532 agentflux && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /tmp agentflux
# The git toolset runs git.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/* \
    && install -d -o 65532 -g 65532 /var/lib/agentflux /var/lib/agentflux/trajectories
# Copied into a new workspace volume, with its owner.
COPY --chown=65532:65532 deploy/toolsets/filesystem/workspace /workspace
COPY --from=build /opt/nodejs/bin/node /usr/local/bin/node
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY deploy/__init__.py deploy/
COPY deploy/images/__init__.py deploy/images/health.py deploy/images/system_sbom.py deploy/images/
RUN python3 -B -m deploy.images.system_sbom /opt/venv/share/sbom/system.cdx.json
COPY --from=build /toolsets deploy/toolsets
COPY services services
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    AGENTFLUX_SANDBOX_HOST=0.0.0.0 AGENTFLUX_SANDBOX_METRICS_PORT=9034 \
    AGENTFLUX_SANDBOX_DRIVER=external AGENTFLUX_SANDBOX_WORKSPACE_DIR=/workspace \
    AGENTFLUX_SANDBOX_TRAJECTORY_DIR=/var/lib/agentflux/trajectories AGENTFLUX_SANDBOX_PRIVATE_NETWORK=true
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="AgentFlux sandbox" \
      org.opencontainers.image.description="MCP servers, run and limited" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 65532:65532
EXPOSE 8034 9034
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s --retries=3 CMD ["python", "-m", "deploy.images.health"]
CMD ["python", "-m", "services.sandbox"]
