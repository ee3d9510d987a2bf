# The image of Tierway: `docker build -t tierway .`
#
# Three stages: Node for the page of the dashboard, Rust to build, and distroless "cc" to run, which has glibc,
# libgcc, CA certificates and nothing else: no shell, no package manager. The last two are Debian 12, so that the
# binary runs with the glibc it was linked against. RUN steps use relative paths: tests/ops/replay_dockerfile.py replays them
# where there is no container engine.

FROM node:22-bookworm-slim AS dashboard
WORKDIR /src
COPY dashboard/package.json dashboard/package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY dashboard/ ./
RUN npm run build


FROM rust:1.95-slim-bookworm AS builder
WORKDIR /src

# Dependencies first: this layer is built again only when they change.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && echo 'fn main() {}' >src/main.rs && touch src/lib.rs \
    && cargo build --release --locked \
    && rm -r src

COPY build.rs ./
COPY config/ config/
COPY src/ src/
COPY dashboard/public/ dashboard/public/
COPY --from=dashboard /src/dist/ dashboard/dist/
# The commit, for tierway_build_info and the labels.
ARG TIERWAY_REVISION=unknown
# Copied sources may be older than what was built from the empty ones above: cargo must not take
# those for current.
RUN touch src/main.rs src/lib.rs \
    && cargo build --release --locked \
    && mkdir volume


FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=builder /src/target/release/tierway /tierway
COPY LICENSE /LICENSE
# By number: a cluster that demands a user other than root can only check a number.
COPY --from=builder --chown=65532:65532 /src/volume/ /var/lib/tierway/
USER 65532:65532
WORKDIR /var/lib/tierway
VOLUME /var/lib/tierway

# Inside a container, loopback cannot be reached from outside, and only the volume outlives it. Both
# override the file.
ENV TIERWAY__SERVER__LISTEN=0.0.0.0:8080 \
    TIERWAY__STORE__URL=sqlite:/var/lib/tierway/tierway.db
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 CMD ["/tierway", "healthcheck"]
# Drains; see "Stopping" in docs/operations.md for how long that takes.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/tierway"]
CMD ["serve"]

ARG TIERWAY_VERSION=unknown
ARG TIERWAY_REVISION=unknown
LABEL org.opencontainers.image.title="tierway" \
      org.opencontainers.image.description="An OpenAI-compatible model gateway: tiers, measured failover, honest streams, keys with policies." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${TIERWAY_VERSION}" \
      org.opencontainers.image.revision="${TIERWAY_REVISION}" \
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian12:nonroot"
