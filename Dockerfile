# One image for every role: the command says which.

FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
        g++ libssl-dev make mold perl pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked -p nublar && cp target/release/nublar /usr/local/bin/nublar

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates libssl3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/nublar nublar \
    && install -d -o nublar -g nublar -m 0700 /var/lib/nublar /var/lib/nublar/secrets
COPY --from=build /usr/local/bin/nublar /usr/local/bin/nublar
USER nublar
VOLUME ["/var/lib/nublar"]
EXPOSE 8000 8889
ENTRYPOINT ["nublar"]
CMD ["run", "--data", "/var/lib/nublar"]
