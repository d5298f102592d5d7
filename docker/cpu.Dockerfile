# Build from the repository's root:  docker build -f docker/cpu.Dockerfile -t cxrgan .
FROM python:3.12.11-slim-bookworm

# Not root, so that files in mounted folders belong to a user; 1000 is the usual first one.
RUN useradd --create-home --uid 1000 cxrgan
WORKDIR /app
COPY setup.py setup.cfg pyproject.toml README.md LICENSE ./
COPY keras_cxrgan keras_cxrgan
RUN pip install --no-cache-dir .

USER cxrgan
WORKDIR /home/cxrgan
RUN mkdir runs
VOLUME /home/cxrgan/runs
# docker run cxrgan            is  cxrgan train
# docker run cxrgan recipes    is  cxrgan recipes
ENTRYPOINT ["cxrgan"]
CMD ["train"]
