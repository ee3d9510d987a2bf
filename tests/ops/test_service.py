"""Compose and systemd: what can be checked without a container engine or an init system."""

import json
import os
import re
import shutil
import subprocess

import pytest
import yaml
from stage import BINARY, PROJECT

COMPOSE = yaml.safe_load((PROJECT / "compose.yaml").read_text())
UNIT = PROJECT / "config/systemd/tierway.service"
SOCKET = PROJECT / "config/systemd/tierway.socket"
GRAFANA = PROJECT / "config/grafana/provisioning"
# After lb_grace and drain: error events of cut streams, and closing connections.
AFTERWARDS_S = 7
# As deploy/replicas/tierway.toml has it.
LB_GRACE_S = 3


@pytest.fixture(scope="module")
def leaving_s() -> int:
    """How long the gateway may take to stop, by its defaults."""
    command = [BINARY, "config", "show", "--json", "--config", PROJECT / "config/tierway.toml"]
    shown = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    values = {each["setting"]: each["value"] for each in shown}
    return sum(int(values[name].removesuffix("s")) for name in ("server.lb_grace", "server.drain")) + AFTERWARDS_S


def test_every_port_of_compose_is_on_loopback():
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert len(ports) == len(set(ports)) == 4 and all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_mounts_what_exists():
    for name, service in COMPOSE["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            exists = (PROJECT / source).exists() if source.startswith("./") else source in COMPOSE["volumes"]
            assert exists, f"{name}: {volume}"


def test_the_parts_of_compose_find_one_another():
    scraped = yaml.safe_load((PROJECT / "config/prometheus/prometheus.yml").read_text())["scrape_configs"][0]
    assert scraped["static_configs"][0]["targets"] == ["tierway:8080"]
    assert COMPOSE["services"]["tierway"]["ports"] == ["127.0.0.1:8080:8080"]
    source = yaml.safe_load((GRAFANA / "datasources/prometheus.yaml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090" and source["isDefault"]
    folder = yaml.safe_load((GRAFANA / "dashboards/tierway.yaml").read_text())["providers"][0]["options"]["path"]
    grafana = COMPOSE["services"]["grafana"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{folder}/tierway.json"
    assert f"./config/grafana/tierway.json:{home}:ro" in grafana["volumes"]


def test_prometheus_presents_the_token_that_the_gateway_asks_for(tmp_path):
    """The token is made by the commands of compose, here in another folder, and read from one file by both."""
    scraped = yaml.safe_load((PROJECT / "config/prometheus/prometheus.yml").read_text())["scrape_configs"][0]
    file = scraped["authorization"]["credentials_file"]
    services = COMPOSE["services"]
    assert services["tierway"]["environment"]["TIERWAY__TELEMETRY__METRICS_TOKEN"] == f"file:{file}"
    folder = file.rpartition("/")[0]
    for name in ("tierway", "prometheus"):
        assert f"metrics-token:{folder}:ro" in services[name]["volumes"]
    maker = services["metrics-token"]
    assert maker["volumes"] == [f"metrics-token:{folder}"]
    assert services["tierway"]["depends_on"]["metrics-token"] == {"condition": "service_completed_successfully"}
    [script] = [line.replace(folder, str(tmp_path)) for line in maker["command"]]
    made = []
    for _ in range(2):
        subprocess.run([*maker["entrypoint"], script], check=True)
        made.append((tmp_path / "token").read_text())
    assert re.fullmatch(r"[0-9a-f]{64}\n", made[0]) and made[0] == made[1], "made once"


def test_every_container_has_bounds_and_a_bounded_log():
    for name, service in COMPOSE["services"].items():
        limits = service["deploy"]["resources"]["limits"]
        assert float(limits["cpus"]) > 0 and re.fullmatch(r"\d+[mg]", limits["memory"]), name
        assert service["logging"]["driver"] == "json-file" and set(service["logging"]["options"]) == {"max-size", "max-file"}, name


def test_whatever_is_waited_for_says_when_it_is_ready():
    """The gateways' image has a health check of its own: tests/ops/test_image.py."""
    services = COMPOSE["services"]
    for name, service in services.items():
        waits = service.get("depends_on", {})
        conditions = waits.items() if isinstance(waits, dict) else [(other, {"condition": "service_started"}) for other in waits]
        for other, wait in conditions:
            profiles = services[other].get("profiles")
            assert not profiles or profiles == service.get("profiles"), f"{name} waits for {other}, which may not be started"
            if wait["condition"] == "service_healthy":
                assert services[other]["image"] == "tierway" or services[other]["healthcheck"]["test"][0] == "CMD", other
            if wait["condition"] == "service_completed_successfully":
                assert "restart" not in services[other] and services[other]["entrypoint"] == ["sh", "-c"], other


def made_for_replicas(folder) -> str:
    """The URL of the database as the commands of compose make it, in `folder`."""
    maker = COMPOSE["services"]["replicas-secrets"]
    # Compose takes $$ for $.
    [script] = [line.replace("/run/replicas", str(folder)).replace("$$", "$") for line in maker["command"]]
    made = []
    for _ in range(2):
        subprocess.run([*maker["entrypoint"], script], check=True)
        made.append((folder / "store-url").read_text())
    assert made[0] == made[1], "made once"
    return made[0].strip()


def test_the_gateways_of_the_replicas_take_their_configuration(tmp_path):
    url = made_for_replicas(tmp_path)
    password = (tmp_path / "password").read_text().strip()
    postgres = COMPOSE["services"]["postgres"]["environment"]
    assert postgres["POSTGRES_PASSWORD_FILE"] == "/run/replicas/password" and len(password) == 64
    user, database = postgres["POSTGRES_USER"], postgres["POSTGRES_DB"]
    assert url == f"postgres://{user}:{password}@postgres/{database}?sslmode=disable"
    (tmp_path / "token").write_text("t" * 64)
    gateways = [COMPOSE["services"][name] for name in ("gateway-1", "gateway-2")]
    assert gateways[0] == gateways[1]
    env = gateways[0]["environment"]
    for place in ("/run/replicas", "/run/metrics-token"):
        env = {name: value.replace(place, str(tmp_path)) for name, value in env.items()}
    mounts = dict(volume.split(":")[:2] for volume in gateways[0]["volumes"])
    config = next(source for source, target in mounts.items() if target == gateways[0]["command"][-1])
    checked = subprocess.run(
        [BINARY, "check", "--config", PROJECT / config], env=env, cwd=tmp_path, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_haproxy_takes_its_configuration_and_finds_the_gateways():
    haproxy = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    assert haproxy, "there is no haproxy: `apt-get install haproxy`"
    service = COMPOSE["services"]["haproxy"]
    file = PROJECT / service["volumes"][0].split(":")[0]
    checked = subprocess.run([haproxy, "-c", "-f", file], env=service["environment"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    # Of its warnings only those are expected that say that this machine does not know the names.
    warnings = [line for line in checked.stderr.splitlines() if "[WARNING]" in line and "could not resolve" not in line]
    assert not warnings, warnings
    named = set(re.findall(r'"\$\{TIERWAY_GATEWAY_\d-(.+?):8080\}"', file.read_text()))
    assert named == set(service["depends_on"])
    scraped = yaml.safe_load((PROJECT / "config/prometheus/prometheus.yml").read_text())["scrape_configs"][0]
    assert set(scraped["dns_sd_configs"][0]["names"]) == named


def test_no_process_is_killed_while_draining(leaving_s):
    for name in ("tierway", "gateway-1", "gateway-2"):
        assert int(COMPOSE["services"][name]["stop_grace_period"].removesuffix("s")) > leaving_s + LB_GRACE_S
    assert int(re.search(r"^TimeoutStopSec=(\d+)s$", UNIT.read_text(), re.M)[1]) > leaving_s


def test_the_socket_has_the_address_that_is_the_default():
    command = [BINARY, "config", "show", "--json", "--config", PROJECT / "config/tierway.toml"]
    shown = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    listen = next(each["value"] for each in shown if each["setting"] == "server.listen")
    assert re.findall(r"^ListenStream=(.+)$", SOCKET.read_text(), re.M) == [listen]


def systemd_analyze(*arguments) -> subprocess.CompletedProcess:
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze on this machine")
    return subprocess.run(["systemd-analyze", "--no-pager", *arguments], capture_output=True, text=True)


def test_systemd_understands_the_units(tmp_path):
    # The program is not installed where the unit will find it.
    unit = tmp_path / "tierway.service"
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/tierway", str(BINARY)))
    socket = tmp_path / "tierway.socket"
    socket.write_text(SOCKET.read_text())
    verified = systemd_analyze("verify", "--man=no", unit, socket)
    said = [line for line in verified.stderr.splitlines() if "tierway" in line]
    assert verified.returncode == 0 and not said, verified.stderr


def test_the_unit_is_hardened():
    rated = systemd_analyze("security", "--offline=true", "--threshold=20", UNIT)
    if "offline" in rated.stderr:
        pytest.skip("this systemd-analyze cannot rate a file")
    assert rated.returncode == 0, rated.stdout[-400:] + rated.stderr
