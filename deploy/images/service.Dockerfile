# The gateway, the selector, the argument service and the call cache, each started as `python -m services.<name>`.
ARG PYTHON_TAG=3.11.16-slim-bookworm
# A base made without a registry has no digest: build with --build-arg PYTHON_DIGEST=
ARG PYTHON_DIGEST=@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM python:${PYTHON_TAG}${PYTHON_DIGEST} AS build
WORKDIR /build
COPY deploy/images/install.sh deploy/images/secrets.sh deploy/requirements/images/tools.txt deploy/requirements/images/service.txt ./
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=ca --mount=type=secret,id=index sh install.sh service

FROM python:${PYTHON_TAG}${PYTHON_DIGEST}
RUN groupadd --gid 65532 agentflux && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /tmp agentflux
# The empty folder gives a new volume its owner.
RUN install -d -o 65532 -g 65532 /var/lib/agentflux /var/lib/agentflux/adapters /var/lib/agentflux/decisions /models /models/base
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY deploy/__init__.py deploy/
COPY deploy/images/__init__.py deploy/images/health.py deploy/images/system_sbom.py deploy/images/
RUN python3 -B -m deploy.images.system_sbom /opt/venv/share/sbom/system.cdx.json
COPY deploy/toolsets deploy/toolsets
COPY services services
# Inside a container loopback reaches nobody.
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    AGENTFLUX_GATEWAY_HOST=0.0.0.0 AGENTFLUX_SELECTOR_HOST=0.0.0.0 \
    AGENTFLUX_ARGUMENTS_HOST=0.0.0.0 AGENTFLUX_CALLCACHE_HOST=0.0.0.0
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="AgentFlux service" \
      org.opencontainers.image.description="Gateway, selector, argument service and call cache" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 65532:65532
EXPOSE 8030 8031 8032 8033
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s --retries=3 CMD ["python", "-m", "deploy.images.health"]
CMD ["python", "-m", "services.gateway"]
