# One service's image, from its own hashed lock and its own code:
#
#   docker build --target service --build-arg SERVICE=router --build-arg MODULE=router -t shashin/router .
#
# The embedder's target is `embedder`: it brings the models along. The steps of builds, and the
# command that plans them, are no service: target `builds`, SERVICE=builds. `make images` builds all of them.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS libraries
ARG SERVICE
COPY locks/${SERVICE}.txt /lock.txt
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --only-binary :all: \
        --require-hashes --requirement /lock.txt \
    && find /opt/venv/lib -type d \( -name tests -o -path '*/pyarrow/include' \) -prune -exec rm -r {} +

FROM ${BASE} AS native
COPY locks/compiler.txt /lock.txt
RUN pip install --no-cache-dir --no-deps --only-binary :all: --require-hashes --requirement /lock.txt
COPY shashin/shards/kinds/native /native
RUN python /native/build.py

# Bytecode is compiled here, since the root file system may be read-only; once for all services.
FROM ${BASE} AS code
COPY shashin /app/shashin
COPY --from=native /native/lists.so /app/shashin/shards/kinds/native/
RUN python -m compileall -q /app

FROM libraries AS service
COPY --from=code /app /app
ARG SERVICE
ARG MODULE
COPY services/__init__.py /app/services/
COPY services/${MODULE} /app/services/${MODULE}
# Work and cache are volumes.
RUN /opt/venv/bin/python -m compileall -q /app/services \
    && mkdir /work /cache /tmp/shashin \
    && chown 10001:10001 /work /cache /tmp/shashin
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SERVICE_MODULE=services.${MODULE} \
    SHASHIN_HTTP_HOST=0.0.0.0 \
    SHASHIN_HTTP_PORT=8080 \
    SHASHIN_GRPC_HOST=0.0.0.0 \
    SHASHIN_GRPC_PORT=50051 \
    SHASHIN_REST_HOST=0.0.0.0 \
    SHASHIN_REST_PORT=8081
USER 10001:10001
WORKDIR /work
EXPOSE 8080 8081 50051
ENTRYPOINT ["/bin/sh", "-c", "exec python -m \"$SERVICE_MODULE\""]
# Last, since every revision has others.
ARG VERSION=0.1.0
ARG REVISION=""
LABEL org.opencontainers.image.title="shashin-${SERVICE}" \
    org.opencontainers.image.description="Search a marketplace by photo: the ${SERVICE}" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"

FROM service AS embedder
COPY models/demo-v1/checkpoint.pt /app/shashin/model/models/demo-v1/
COPY models/efficientnet-lite0/checkpoint.pt models/efficientnet-lite0/LICENSE models/efficientnet-lite0/NOTICE /app/shashin/model/models/efficientnet-lite0/

# After the services: a builder without BuildKit runs every stage above its target, and copies of the
# embedder's libraries are large.
FROM libraries AS builds
COPY --from=code /app /app
RUN printf '#!/bin/sh\nexec python -P -m shashin.cli "$@"\n' >/opt/venv/bin/shashin \
    && chmod +x /opt/venv/bin/shashin \
    && mkdir /builds /cache /work \
    && chown 10001:10001 /builds /cache /work
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /work
ENTRYPOINT ["shashin"]
# Last, since every revision has others.
ARG VERSION=0.1.0
ARG REVISION=""
LABEL org.opencontainers.image.title="shashin-builds" \
    org.opencontainers.image.description="Search a marketplace by photo: the steps of builds, and the command that plans them" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"

# The shop of docker-compose.yml; its libraries are those of builds.
FROM builds AS shop
COPY catalogue/shashin_catalogue /app/shashin_catalogue
