"""The Helm chart, rendered by the template engine that Helm uses: valid for Kubernetes, and a pod that the gateway runs in.

No cluster runs here: what is checked is what the API server would be sent, and the gateway started as its pod says.
"""

import json
import os
import re
import shutil
import subprocess
import urllib.request

import jsonschema
import kubernetes_validate
import pytest
import yaml
from stage import BINARY, PROJECT, RULES, Service, opener

CHART = PROJECT / "deploy/helm/tierway"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
ABOUT = yaml.safe_load((CHART / "Chart.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
# The oldest that Chart.yaml allows and one of the newest that the validator knows.
VERSIONS = ["1.25", "1.34"]
# What the Prometheus operator defines has no schema there.
OF_THE_OPERATOR = {"ServiceMonitor", "PrometheusRule"}
GIVEN = {"config": (PROJECT / "config/tierway.toml").read_text(), "existingSecret": "tierway"}
SQLITE = {**GIVEN, "store": {"type": "sqlite"}, "replicas": 1}
EVERYTHING = {
    **GIVEN,
    "autoscaling": {"enabled": True, "maxReplicas": 20},
    "tls": {"existingSecret": "certificate"},
    "ingress": {"enabled": True, "className": "nginx", "host": "models.example", "tlsSecret": "certificate"},
    "monitoring": {name: {"enabled": True} for name in ("serviceMonitor", "prometheusRule", "dashboard")},
    "image": {"repository": "registry.example/tierway", "digest": "sha256:" + 64 * "a"},
    "imagePullSecrets": [{"name": "registry"}],
    "env": [{"name": "HTTPS_PROXY", "value": "http://egress:3128"}],
    "podLabels": {"team": "platform"}, "podAnnotations": {"note": "x"}, "priorityClassName": "high",
    "serviceAccount": {"annotations": {"note": "y"}}, "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "models", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """The renderer, built from Debian's packages."""
    if not shutil.which("go"):
        pytest.skip("no Go here: apt install golang-go golang-github-masterminds-sprig-dev golang-k8s-sigs-yaml-dev")
    folder = tmp_path_factory.mktemp("render")
    env = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": str(folder / "cache")}
    source = PROJECT / "tests/ops/helm/render.go"
    subprocess.run(["go", "build", "-o", folder / "render", source], check=True, env=env)
    return folder / "render"


def merged(defaults: dict, given: dict) -> dict:
    both = {name: value for name, value in defaults.items()}
    for name, value in given.items():
        deeper = isinstance(value, dict) and isinstance(both.get(name), dict)
        both[name] = merged(both[name], value) if deeper else value
    return both


def render(engine, given: dict, name: str = "gateway"):
    """The finished process of the renderer, after the check of the values that Helm does first."""
    values = merged(VALUES, given)
    jsonschema.validate(values, SCHEMA)
    context = {
        "Values": values,
        "Release": {"Name": name, "Namespace": "models", "Service": "Helm"},
        "Chart": {"Name": ABOUT["name"], "Version": ABOUT["version"], "AppVersion": ABOUT["appVersion"]},
    }
    return subprocess.run([engine, CHART], input=json.dumps(context), capture_output=True, text=True)


def documents(engine, given: dict) -> dict:
    """Kind and name to each document that is rendered."""
    done = render(engine, given)
    assert done.returncode == 0, done.stderr
    texts = json.loads(done.stdout)
    assert "/v1" in texts.pop("NOTES.txt")
    found = {}
    for text in texts.values():
        for document in filter(None, yaml.safe_load_all(text)):
            found[document["kind"], document["metadata"]["name"]] = document
    return found


@pytest.mark.parametrize("given", [GIVEN, SQLITE, EVERYTHING], ids=["defaults", "sqlite", "everything"])
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_accepts_every_document(engine, given, version):
    found = documents(engine, given)
    assert len(found) >= 6
    for (kind, _), document in found.items():
        if kind not in OF_THE_OPERATOR:
            kubernetes_validate.validate(document, version, strict=True)


def test_what_kubernetes_refuses_is_noticed(engine):
    """The validator is strict: it must not accept what it does not know."""
    deployment = documents(engine, GIVEN)["Deployment", "gateway-tierway"]
    deployment["spec"]["template"]["spec"]["containers"][0]["redinessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)


def pod_of(found: dict) -> dict:
    return found["Deployment", "gateway-tierway"]["spec"]["template"]


@pytest.mark.parametrize("given", [GIVEN, SQLITE, EVERYTHING], ids=["defaults", "sqlite", "everything"])
def test_a_pod_may_do_no_more_than_it_needs(engine, given):
    found = documents(engine, given)
    pod = pod_of(found)["spec"]
    container = pod["containers"][0]
    assert pod["automountServiceAccountToken"] is False
    assert found["ServiceAccount", "gateway-tierway"]["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }
    # No secret is in the pod's text: each is a file.
    assert not any("valueFrom" in each for each in container["env"])
    writable = [mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["data"]
    server = merged(VALUES, given)["server"]
    assert pod["terminationGracePeriodSeconds"] > server["lbGraceSeconds"] + server["drainSeconds"] + 7


@pytest.mark.parametrize("given", [GIVEN, SQLITE, EVERYTHING], ids=["defaults", "sqlite", "everything"])
def test_the_parts_find_one_another(engine, given):
    found = documents(engine, given)
    template = pod_of(found)
    labels, container = template["metadata"]["labels"], template["spec"]["containers"][0]
    ports = {port["name"] for port in container["ports"]}
    selectors = [found["Deployment", "gateway-tierway"]["spec"]["selector"]["matchLabels"]]
    for (kind, _), document in found.items():
        if kind == "Service":
            selectors.append(document["spec"]["selector"])
            assert {port["targetPort"] for port in document["spec"]["ports"]} <= ports
        if kind == "PodDisruptionBudget":
            selectors.append(document["spec"]["selector"]["matchLabels"])
        if kind == "HorizontalPodAutoscaler":
            assert document["spec"]["scaleTargetRef"]["name"] == "gateway-tierway"
        if kind == "Ingress":
            path = document["spec"]["rules"][0]["http"]["paths"][0]
            # Metrics and the admin API have a service of their own, which is not the one that clients reach.
            assert path["path"] == "/v1/" and path["backend"]["service"]["name"] == "gateway-tierway"
    assert all(selector.items() <= labels.items() for selector in selectors)
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "admin"
    volumes = {volume["name"] for volume in template["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_sqlite_has_one_gateway_at_a_time(engine):
    found = documents(engine, SQLITE)
    deployment = found["Deployment", "gateway-tierway"]["spec"]
    assert deployment["replicas"] == 1 and deployment["strategy"] == {"type": "Recreate"}
    assert ("PersistentVolumeClaim", "gateway-tierway") in found
    assert not any(kind == "PodDisruptionBudget" for kind, _ in found)


def test_several_gateways_are_replaced_one_by_one(engine):
    found = documents(engine, GIVEN)
    deployment = found["Deployment", "gateway-tierway"]["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert ("PodDisruptionBudget", "gateway-tierway") in found
    assert not any(kind == "PersistentVolumeClaim" for kind, _ in found)
    # With an autoscaler it alone decides.
    assert "replicas" not in documents(engine, EVERYTHING)["Deployment", "gateway-tierway"]["spec"]


def test_runbooks_are_where_the_team_reads_them(engine):
    ours = {"enabled": True, "runbooks": "https://wiki.example.com/runbooks"}
    found = documents(engine, {**EVERYTHING, "monitoring": {"prometheusRule": ours}})
    groups = found["PrometheusRule", "gateway-tierway"]["spec"]["groups"]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    wanted = [f"https://wiki.example.com/runbooks#{alert['alert'].lower()}" for alert in alerts]
    assert [alert["annotations"]["runbook_url"] for alert in alerts] == wanted


def test_alerts_and_dashboard_are_those_of_this_version(engine):
    found = documents(engine, EVERYTHING)
    assert found["PrometheusRule", "gateway-tierway"]["spec"] == yaml.safe_load(RULES.read_text())
    dashboard = found["ConfigMap", "gateway-tierway-dashboard"]
    assert dashboard["data"]["tierway.json"] == (PROJECT / "config/grafana/tierway.json").read_text()
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    monitor = found["ServiceMonitor", "gateway-tierway"]
    service = found["Service", "gateway-tierway-admin"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["scheme"] == "https"
    # The dashboard selects by job="tierway".
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "tierway"


@pytest.mark.parametrize("given, why", [
    ({}, "config: give the gateway's tierway.toml"),
    ({"config": "x"}, "existingSecret: name a Secret"),
    ({**GIVEN, "existingConfigMap": "y"}, "set one of them"),
    ({**GIVEN, "store": {"type": "sqlite"}}, "set replicas to 1"),
    ({**SQLITE, "autoscaling": {"enabled": True}}, "set replicas to 1"),
    ({**GIVEN, "autoscaling": {"enabled": True, "minReplicas": 11}}, "above autoscaling.maxReplicas"),
    ({**GIVEN, "ingress": {"enabled": True}}, "ingress.host: the name that clients use"),
])
def test_what_cannot_run_is_refused_with_what_to_do(engine, given, why):
    done = render(engine, given)
    assert done.returncode == 1 and why in done.stderr


@pytest.mark.parametrize("given", [
    {"replica": 3}, {"replicas": 0}, {"replicas": "2"}, {"store": {"type": "mysql"}}, {"image": {"digest": "latest"}},
    {"server": {"maxInFlightBytes": "512Mi"}}, {"tls": {"secret": "x"}}, {"monitoring": {"servicemonitor": {}}},
])
def test_misspelt_values_are_refused(given):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(merged(VALUES, given), SCHEMA)


def test_every_value_has_a_schema_and_is_used():
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    templates = "".join(path.read_text() for path in sorted((CHART / "templates").iterdir()))

    def used(path: str) -> bool:
        """By a template, alone or as part of what it is in."""
        whole = "." not in path
        return re.search(rf"\.Values\.{re.escape(path)}\b", templates) or (not whole and used(path.rpartition(".")[0]))

    def each(values, schema, path):
        for name, value in values.items():
            assert name in schema["properties"], f"{path}{name} is in values.yaml alone"
            assert used(path + name), f"{path}{name} is used by no template"
            if "properties" in schema["properties"][name]:
                each(value, schema["properties"][name], f"{path}{name}.")

    each(VALUES, SCHEMA, "")


def test_the_gateway_runs_as_its_pod_says(engine, tmp_path):
    """Its arguments, variables, files and probes, with the folders of the container in a temporary one."""
    found = documents(engine, SQLITE)
    container = pod_of(found)["spec"]["containers"][0]
    for folder in ("etc/tierway", "run/secrets/tierway", "var/lib/tierway"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/tierway/tierway.toml").write_text(found["ConfigMap", "gateway-tierway"]["data"]["tierway.toml"])
    tokens = {"admin-token": "twa-helm-" + 32 * "0", "metrics-token": "twm-helm-" + 32 * "1"}
    for name, token in tokens.items():
        (tmp_path / "run/secrets/tierway" / name).write_text(token)

    def here(text: str) -> str:
        """As in the container, but for its folders, and its addresses: on loopback, with ports that the system chooses."""
        text = re.sub(r"(?<![\w.])/(etc|run|var)/", rf"{tmp_path}/\1/", text)
        return {"0.0.0.0:8080": "127.0.0.1:0", "0.0.0.0:9091": "127.0.0.2:0"}.get(text, text)

    env = {each["name"]: here(each["value"]) for each in container["env"]}
    command = [BINARY, *map(here, container["args"])]
    service = Service(command, r"Metrics, with a token: http://(\S+)/metrics", "stderr", tmp_path, env)
    try:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container[probe]["httpGet"]
            with opener.open(f"http://{service.address}{asked['path']}", timeout=5) as answer:
                assert answer.status == 200
        bearer = {"authorization": f"Bearer {tokens['metrics-token']}"}
        scrape = urllib.request.Request(f"http://{service.address}/metrics", headers=bearer)
        with opener.open(scrape, timeout=5) as answer:
            assert b"tierway_build_info" in answer.read()
        assert (tmp_path / "var/lib/tierway/tierway.db").exists()
    finally:
        service.stop()
