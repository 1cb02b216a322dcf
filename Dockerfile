# One image for every part of docker-compose.yml.
FROM python:3.12-slim-bookworm
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    DAGSTER_HOME=/var/lib/earmark/dagster EARMARK_HOME=/var/lib/earmark
WORKDIR /opt/earmark
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY orchestration ./orchestration
RUN pip install -c constraints.txt -e . && python -m compileall -q /usr/local/lib/python3.12/site-packages
COPY . .
RUN useradd --system --home-dir /var/lib/earmark --create-home earmark \
    && mkdir -p /var/lib/earmark/dagster /landing \
    && cp dagster.yaml /var/lib/earmark/dagster/ \
    && chown -R earmark /var/lib/earmark /opt/earmark /landing
USER earmark
CMD ["earmark", "--help"]
