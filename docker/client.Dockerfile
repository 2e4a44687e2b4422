# A client of a federation: the agent, or the SuperNode beside it; which one, the command says.
#
#   docker build -f docker/client.Dockerfile -t wattfed-client .
#   docker build -f docker/client.Dockerfile -t wattfed-client --build-arg TORCH=base \
#       --build-arg BASE=IMAGE-WITH-TORCH-FOR-THIS-JETPACK .
#
# TORCH=pip installs the pinned torch and torchvision; TORCH=base holds those of the base image, as
# on a Jetson. BASE needs Python 3.10 or newer with venv, and with 3.10 the versions of
# CONSTRAINTS=constraints-oldest.txt; PIP_OPTIONS as for the server. See docker/README.md.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG TORCH=pip
ARG CONSTRAINTS=constraints.txt
ARG PIP_OPTIONS="--extra-index-url https://download.pytorch.org/whl/cpu"
COPY . /src
WORKDIR /src
# torch of the base stays, and where NumPy is there too, the one that it was built for
RUN python3 -m venv --system-site-packages /opt/wattfed \
    && cp "$CONSTRAINTS" held.txt && ours='.[vision]' \
    && if [ "$TORCH" = base ]; then \
        ours=. && sed -i '/^torch\|^numpy/d' held.txt \
        && /opt/wattfed/bin/pip list --format=freeze | grep ^torch >> held.txt \
        || { echo "TORCH=base, but there is no torch in BASE" >&2; exit 1; }; \
    fi \
    && /opt/wattfed/bin/pip install --no-cache-dir --disable-pip-version-check $PIP_OPTIONS \
        --find-links docker/wheels -c held.txt ./release/powerctl "$ours"

FROM ${BASE}
# no root: the agent asks `powerctl daemon`, on the host, to set clocks
RUN useradd --uid 10001 --create-home wattfed \
    && install -d -o wattfed -g wattfed -m 700 /keys /run/wattfed /var/lib/wattfed
COPY --from=build /opt/wattfed /opt/wattfed
COPY docker/health.py /opt/health.py
ENV PATH=/opt/wattfed/bin:$PATH \
    FLWR_HOME=/var/lib/wattfed/flwr \
    FLWR_TELEMETRY_ENABLED=0 \
    FLWR_DISABLE_UPDATE_CHECK=1 \
    FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1 \
    WATTFED_AGENT_SOCKET=/run/wattfed/agent.sock \
    HEALTH=unix:/run/wattfed/agent.sock
USER wattfed
WORKDIR /var/lib/wattfed
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "/opt/health.py"]
CMD ["wattfed-agent", "serve", "--state-dir", "/var/lib/wattfed/agent"]
