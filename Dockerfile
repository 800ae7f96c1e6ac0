# emberd in a container. docs/container.md says how to build and run it.
#
# BASE: any Linux with glibc 2.35 or later and Python 3.11 to 3.14 with its venv module.
ARG BASE=docker.io/library/python:3.13-slim

FROM ${BASE} AS build
WORKDIR /source
COPY requirements requirements
# Two environments, so that pip and what builds emberd stay here.
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/emberd
# The secret pip.conf, if given, is pip's configuration: another index, say. No layer has it.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    /build/bin/pip install --no-cache-dir --no-deps --only-binary :all: --require-hashes \
      -r requirements/build.txt \
 && /build/bin/pip --python /opt/emberd/bin/python install --no-cache-dir --no-deps \
      --only-binary :all: --require-hashes -r requirements/runtime.txt
COPY . .
RUN /build/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /wheel . \
 && /build/bin/pip --python /opt/emberd/bin/python install --no-index --no-deps /wheel/*.whl \
 && mkdir -m 0700 /data

FROM ${BASE}
LABEL org.opencontainers.image.title="emberd" \
      org.opencontainers.image.description="A local embedding server: many models, one registry" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/emberd /opt/emberd
COPY --from=build --chown=65532:65532 /data /data
# Beyond loopback, emberd does not start without a token.
ENV PATH=/opt/emberd/bin:$PATH \
    EMBERD_HOME=/data \
    HF_HOME=/data/huggingface \
    EMBERD_SERVER_HOST=0.0.0.0
USER 65532:65532
VOLUME /data
EXPOSE 8767
# http.client, because urllib would take the proxy that is meant for downloads.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["python3", "-c", "from http.client import HTTPConnection; c = HTTPConnection('127.0.0.1', 8767, timeout=4); c.request('GET', '/health'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["emberd"]
CMD ["serve"]
