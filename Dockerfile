# Production image: the package and its locked dependencies, no development servers, no root.
FROM python:3.13.9-slim-trixie AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/byok
WORKDIR /src
COPY requirements.lock .
RUN /opt/byok/bin/pip install --require-hashes -r requirements.lock
COPY pyproject.toml README.md ./
COPY byok byok
COPY workers workers
RUN /opt/byok/bin/pip install --no-deps .

FROM python:3.13.9-slim-trixie AS runtime
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin byok \
    && install -d -o byok -g byok -m 700 /flower /var/lib/byok
COPY --from=build /opt/byok /opt/byok
# For the health checks: each container has a /tmp of its own.
ENV PATH=/opt/byok/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 BYOK_HEALTH_FOLDER=/tmp
WORKDIR /tmp
USER 10001:10001
CMD ["byok", "--help"]

# Adds the KMS simulator, for the dev profile of docker-compose.yml only.
FROM build AS build-dev
COPY constraints.txt .
RUN /opt/byok/bin/pip install -c constraints.txt moto flask flask-cors

FROM runtime AS dev
USER root
RUN install -d -o byok -g byok /state
USER 10001:10001
COPY --from=build-dev /opt/byok /opt/byok
