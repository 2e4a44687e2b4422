# The server of a federation: Flower's SuperLink, the ServerApp it starts, and the app to submit.
#
#   docker build -f docker/server.Dockerfile -t wattfed-server .
#
# BASE and CONSTRAINTS as for the client. PIP_OPTIONS lets pip find a build of torch without CUDA;
# --no-index builds without a network, from wheels in docker/wheels.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG CONSTRAINTS=constraints.txt
ARG PIP_OPTIONS="--extra-index-url https://download.pytorch.org/whl/cpu"
COPY . /src
RUN python3 -m venv /opt/wattfed \
    && /opt/wattfed/bin/pip install --no-cache-dir --disable-pip-version-check $PIP_OPTIONS \
        --find-links /src/docker/wheels -c "/src/$CONSTRAINTS" \
        /src/release/powerctl '/src[vision]' \
    && rm -rf /src/docker/wheels

FROM ${BASE}
RUN useradd --uid 10001 --create-home wattfed \
    && install -d -o wattfed -g wattfed -m 700 /keys /models /results /var/lib/wattfed
COPY --from=build /opt/wattfed /opt/wattfed
# the app that `flwr run` submits; every node gets its code from here
COPY --from=build /src /app
COPY docker/health.py /opt/health.py
ENV PATH=/opt/wattfed/bin:$PATH \
    FLWR_HOME=/var/lib/wattfed/flwr \
    FLWR_TELEMETRY_ENABLED=0 \
    FLWR_DISABLE_UPDATE_CHECK=1 \
    FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1 \
    HEALTH=127.0.0.1:9095
USER wattfed
WORKDIR /results
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "/opt/health.py"]
CMD ["flower-superlink", "--host", "0.0.0.0", "--health-server-address", "127.0.0.1:9095", \
     "--database", "/var/lib/wattfed/superlink.db", "--enable-supernode-auth", \
     "--ssl-ca-certfile", "/keys/ca.crt", "--ssl-certfile", "/keys/server.crt", \
     "--ssl-keyfile", "/keys/server.key"]
