# One image for the services of docker-compose.yml. Code is root's and read-only; what is written lies in
# /var/lib/earmark, of which the image holds no secret and the volumes hold what must last.
FROM python:3.12-slim-bookworm
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    DAGSTER_HOME=/var/lib/earmark/dagster EARMARK_HOME=/var/lib/earmark/home \
    DBT_TARGET_PATH=/var/lib/earmark/target DBT_LOG_PATH=/var/lib/earmark/logs
RUN useradd --uid 10001 --home-dir /var/lib/earmark --no-create-home --shell /usr/sbin/nologin earmark
WORKDIR /opt/earmark
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY earmark ./earmark
COPY orchestration ./orchestration
RUN pip install -c constraints.txt -e .
COPY . .
# A volume takes its first owner from the folder that it is laid over: where the image has none, it is root's.
RUN install -d -o 10001 -g 10001 /landing /var/lib/earmark /var/lib/earmark/home /var/lib/earmark/dagster/storage \
    && install -o 10001 -g 10001 -m 0644 dagster.yaml /var/lib/earmark/dagster/dagster.yaml \
    && chown 10001:10001 /var/lib/earmark/dagster \
    && python -m compileall -q earmark orchestration
USER 10001
# Parses the models, once for all containers; a project that does not load makes no image.
RUN python -c "import orchestration.definitions"
CMD ["earmark", "--help"]
