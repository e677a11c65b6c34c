# One image for all services: each is `python -m services.<name>`.

FROM python:3.13-slim AS build
COPY requirements.txt /
# Only wheels, because the image has no compiler; docs/compose.md lists the machines for which all exist.
RUN python -m venv --without-pip /venv \
 && pip --disable-pip-version-check --python /venv/bin/python install --no-cache-dir --require-hashes --only-binary :all: -r /requirements.txt
COPY services /app/services
COPY shared /app/shared
COPY deploy/compose /app/deploy/compose
RUN /venv/bin/python -m compileall -q /app

FROM python:3.13-slim
# A new volume gets the owner of the folder on which it is mounted.
RUN groupadd --gid 10001 enphase \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /state --shell /usr/sbin/nologin enphase \
 && install -d -o enphase -g enphase -m 0750 /state \
    /volumes/mosquitto /volumes/token_broker /volumes/poller /volumes/carbon_sink /volumes/viewer /volumes/grafana \
    /volumes/graphite
COPY --from=build /venv /venv
COPY --from=build /app /app
WORKDIR /app
USER enphase
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 STATE_DIR=/state
CMD ["python", "-m", "services.poller", "--help"]
