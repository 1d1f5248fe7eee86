# The project with all that it needs, on the CPU or on CUDA.
#   docker build -t yolov5-mobilenetv2 .
#   docker build -t yolov5-mobilenetv2:cuda --build-arg BASE=nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04 .
#   docker run --rm -v "$PWD/mine:/data" yolov5-mobilenetv2 python train.py --data /data/mine.yaml --project /data/runs
#
# The default build of PyTorch brings CUDA libraries along (several gigabytes). For a small image without a GPU, pass the
# address of PyTorch's index of CPU builds, as its installation page names it: --build-arg TORCH_INDEX=…
ARG BASE=ubuntu:24.04
FROM ${BASE}

ARG TORCH_INDEX=

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv fonts-dejavu-core \
    && rm -rf /var/lib/apt/lists/*

RUN python3 -m venv /opt/venv && useradd --create-home --uid 10001 yolo
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1

WORKDIR /app
COPY requirements.txt ./
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -r requirements.txt
COPY --chown=yolo:yolo . .

USER 10001
CMD ["python", "train.py", "--help"]
