"""The servers that a benchmark compares: how each is configured and started.

All forward to the same provider, keep connections alive on both sides and check the key. It must never give one of
them less to do than its configuration says.

Start reading in `contenders`.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from processes import KEY, MODEL, Server, free_port, tool

@dataclass(frozen=True)
class Contender:
    """A server under test: how it is started, on which port it listens."""

    name: str
    command: list
    port: int
    binary: Path
    log: Path
    core: int
    tls: bool

    def start(self):
        return Server(self.command, self.port, self.core, self.log, tls=self.tls)


NGINX = """
daemon off; master_process on; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  scgi_temp_path {folder}/s; uwsgi_temp_path {folder}/u;
  keepalive_requests 1000000000; map_hash_bucket_size 256;
  client_max_body_size 32m; client_body_buffer_size 2m;
  map $http_authorization $refused {{ default 1; "Bearer {key}" 0; }}
  upstream provider {{ server 127.0.0.1:{mock}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port}{nginx_tls};
    location / {{
      if ($refused) {{ return 401 '{{"error":{{"message":"refused"}}}}'; }}
      proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 1h;
    }}
  }}
}}
"""

HAPROXY = """
global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  http-reuse always
  option http-no-delay
frontend clients
  bind 127.0.0.1:{port}{haproxy_tls}
  http-request return status 401 content-type application/json string '{{"error":{{"message":"refused"}}}}' unless {{ req.hdr(authorization) -m str "Bearer {key}" }}
  default_backend provider
backend provider
  server one 127.0.0.1:{mock} pool-max-conn 256
"""

# Every feature on: the key has a rate, a token and a concurrency limit, two deployments are balanced,
# breakers count, and every request is logged and counted.
TIERWAY = """
[server]
listen = "127.0.0.1:{port}"
admin_token = "env:BENCH_ADMIN"
{tierway_tls}

[providers.one]
protocol = "openai"
base_url = "http://127.0.0.1:{mock}/v1"
credential = "env:BENCH_CREDENTIAL"
region = "one"

[providers.two]
protocol = "openai"
base_url = "http://127.0.0.1:{mock}/v1"
credential = "env:BENCH_CREDENTIAL"
region = "two"

[models."{model}"]
price = {{ input = "0.07", output = "0.25" }}
context = 1048576
max_output = 8192
endpoints = ["chat", "embeddings"]
deployments = [{{ provider = "one" }}, {{ provider = "two" }}]

[models.other]
price = {{ input = "0.10", output = "0.28" }}
context = 131072
max_output = 8192
deployments = [{{ provider = "one" }}, {{ provider = "two" }}]

[tiers.default]
models = ["{model}"]
then = ["fallback"]

[tiers.fallback]
models = ["other"]

[routing]
idle = "1h"
total = "1h"

[policies.bench]
tiers = ["*"]
requests_per_minute = 1000000000
tokens_per_minute = 1000000000000
max_concurrent = 100000

[policies.limited]
tiers = ["*"]
requests_per_minute = 1

[teams.bench]

[[keys]]
name = "bench"
team = "bench"
policy = "bench"
secret = "env:BENCH_KEY"

[[keys]]
name = "limited"
policy = "limited"
secret = "env:BENCH_LIMITED"
"""


#: What a configuration says to speak TLS.
TLS = {
    "nginx_tls": " ssl; ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem",
    "haproxy_tls": " ssl crt {folder}/both.pem",
    "tierway_tls": 'tls = {{ cert = "file:{folder}/cert.pem", key = "file:{folder}/key.pem" }}',
}


def contenders(args, folder, mock, connections=16384, tls=False):
    """The servers under test, each with a port of its own and the provider at port `mock` as its upstream."""
    secure = {name: text.format(folder=folder) if tls else "" for name, text in TLS.items()}

    def contender(name, binary, config, command):
        port, file = free_port(), folder / f"{name}{', TLS' if tls else ''}.conf"
        if config:
            file.write_text(config.format(folder=folder, port=port, mock=mock, key=KEY, model=MODEL, connections=connections, **secure))
        command = [str(binary), *(part.format(port=port, config=file) for part in command)]
        return Contender(file.stem, command, port, binary, file.with_suffix(".log"), args.gateway_core, tls)

    found = [
        contender("nginx", tool("nginx"), NGINX, ["-c", "{config}"]),
        contender("HAProxy", tool("haproxy"), HAPROXY, ["-db", "-f", "{config}"]),
        contender("Tierway", args.tierway, TIERWAY, ["serve", "--config", "{config}"]),
    ]
    if args.before:
        found.insert(2, contender("Tierway before", args.before, TIERWAY, ["serve", "--config", "{config}"]))
    if not tls:
        bare = ["pass", "127.0.0.1:{port}", f"http://127.0.0.1:{mock}", KEY]
        found.insert(2, contender("bare axum + reqwest", args.rig, None, bare))
    return found


def certificate(folder):
    """Writes a certificate for loopback and its key: cert.pem, key.pem, and both.pem for HAProxy."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )
    (folder / "both.pem").write_text(cert.read_text() + key.read_text())
