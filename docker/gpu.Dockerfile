# Build from the repository's root:  docker build -f docker/gpu.Dockerfile -t cxrgan-gpu .
# Run with --gpus all; the host needs NVIDIA's driver and container toolkit. The CUDA libraries
# come with the [gpu] extra, in the version TensorFlow was built with, so the base stays small.
FROM python:3.12.11-slim-bookworm

RUN useradd --create-home --uid 1000 cxrgan
WORKDIR /app
COPY setup.py setup.cfg pyproject.toml README.md LICENSE ./
COPY keras_cxrgan keras_cxrgan
RUN pip install --no-cache-dir '.[gpu]'

USER cxrgan
WORKDIR /home/cxrgan
RUN mkdir runs
VOLUME /home/cxrgan/runs
ENTRYPOINT ["cxrgan"]
CMD ["train", "--devices", "gpu"]
