# docker build --tag dermaray:0.1.0 .
FROM python:3.11-slim

# Ray, TensorFlow and OpenCV bring their libraries in their wheels; what else they need (libstdc++, zlib) is in slim.
ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    RAY_USAGE_STATS_ENABLED=0

# KubeRay asks the pods of a RayService with wget whether they are ready.
RUN apt-get update && apt-get install --yes --no-install-recommends wget && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 dermaray

WORKDIR /app

# First what seldom changes, so that a change of the code rebuilds the last small layers alone.
# A GPU image takes a lock of its own: --build-arg LOCK=requirements-gpu.lock
ARG LOCK=requirements.lock
COPY ${LOCK} /tmp/requirements.lock
RUN pip install --require-hashes --requirement /tmp/requirements.lock && rm /tmp/requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY dermaray dermaray
COPY cluster cluster
COPY jobs jobs
COPY serve serve
COPY configs configs
COPY models models
# Everything comes from the lock, the build's setuptools too: nothing is resolved or downloaded here.
RUN pip install --no-deps --no-build-isolation --editable .

# A number, so that Kubernetes can tell that it is not root. The code stays root's: a job cannot change it.
USER 1000:1000
CMD ["dermaray", "--help"]
