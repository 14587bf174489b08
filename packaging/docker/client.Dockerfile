# A hospital's node. Built from the root of the repository:
#   docker build -f packaging/docker/client.Dockerfile --build-arg BASE_IMAGE=NAME@sha256:DIGEST \
#     --build-arg VARIANT=gpu -t concors-client .
# BASE_IMAGE is Debian's Python 3.11 to 3.13 ("slim"), pinned by its digest: a tag may mean another
# image tomorrow.
ARG BASE_IMAGE

FROM ${BASE_IMAGE} AS build
# cpu or gpu: which torch must be in the image. TORCH_INDEX is a package index that has it; empty
# for the index pip is set to.
ARG VARIANT=cpu
ARG TORCH_INDEX=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/concors
WORKDIR /source
COPY constraints.txt ./
RUN /opt/concors/bin/pip install --constraint constraints.txt \
      ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch \
 && found=$(/opt/concors/bin/python -c "import torch; print('gpu' if torch.version.cuda or torch.version.hip else 'cpu')") \
 && { [ "$found" = "$VARIANT" ] || { echo "VARIANT is $VARIANT, and the index gave torch for $found; set TORCH_INDEX" >&2; exit 1; }; }
COPY pyproject.toml README.md LICENSE ./
# All packages, in both images: both ends compare one hash over all of them.
COPY protocol protocol
COPY privacy privacy
COPY deployment deployment
COPY shared_models shared_models
COPY strategies strategies
COPY client client
COPY server server
COPY sim sim
RUN /opt/concors/bin/pip install --constraint constraints.txt .

FROM ${BASE_IMAGE}
COPY --from=build /opt/concors /opt/concors
# The site's directory on the host belongs to this number, and to nobody else.
RUN groupadd --gid 10101 concors \
 && useradd --uid 10101 --gid 10101 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin concors
ENV PATH=/opt/concors/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1
USER 10101:10101
WORKDIR /site
# What a person would look at, too: the data, the papers, the way to the server.
HEALTHCHECK --interval=15m --timeout=2m --start-period=2m --retries=2 \
  CMD ["concors-client", "preflight", "/site"]
ENTRYPOINT ["concors-client"]
CMD ["start", "/site"]
