"""Rules, dashboard and documentation, against what a running gateway exports."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from stage import PROJECT, RULES, TRICKLE_KEY

HERE = Path(__file__).resolve().parent
DASHBOARD = json.loads((PROJECT / "config/grafana/tierway.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
RULE_LIST = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
REASONS = set(re.findall(r'^    \w+ => "(\w+)",$', (PROJECT / "src/domain/reason.rs").read_text(), re.M))

# Attached by Prometheus, not by us.
TARGET_LABELS = {"job", "instance"}


def filled_in(expr: str) -> str:
    """A panel's expression as Grafana would send it."""
    return expr.replace("$__rate_interval", "1m").replace("$job", "tierway")


def families(text: str) -> dict[str, tuple[str, dict[str, set[str]]]]:
    """Metric name → its type, and its labels with the values seen; from Prometheus' text format."""
    found = {name: (kind, {}) for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M)}
    for name, labels in re.findall(r"^([a-z_]+)(?:\{(.*)\})? \S+$", text, re.M):
        name = name if name in found else re.sub("_(bucket|sum|count)$", "", name)
        for label, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels):
            if label != "le":
                found[name][1].setdefault(label, set()).add(value)
    return found


@pytest.fixture(scope="module")
def exported(stage) -> dict[str, tuple[str, dict[str, set[str]]]]:
    """The exported metrics after traffic of every kind."""
    late = {"tierway_fallbacks_total", "tierway_limit_refusals_total", "tierway_breaker_transitions_total"}
    stage.traffic_until(lambda: late - set(families(stage.gateway.metrics())))
    return families(stage.gateway.metrics())


def test_the_traffic_ends_in_every_way_it_should(stage):
    """The first round; later ones find open breakers and used-up limits."""
    assert stage.gateway.traffic() == [200, 200, 200, 200, 502, 401, 404, 404, 200, 400]
    assert stage.gateway.ask("default", key=TRICKLE_KEY) == 429


def test_every_panel_shows_data(stage):
    def missing() -> list[str]:
        return [title for title, expr in QUERIES if not stage.prometheus.query(filled_in(expr))]

    stage.traffic_until(missing)
    assert stage.prometheus.query('sum(rate(tierway_requests_total{reason="served"}[1m]))')[0]["value"][1] != "0"


def test_every_rule_is_evaluated(stage):
    def missing() -> list[str]:
        rules = stage.prometheus.rules()
        assert {rule["name"] for rule in rules} == {rule.get("record") or rule["alert"] for rule in RULE_LIST}
        assert not [rule for rule in rules if rule["health"] == "err"]
        return [rule["name"] for rule in rules if rule["health"] != "ok"]

    stage.traffic_until(missing)


def test_every_recording_rule_records(stage):
    recorded = [rule["record"] for rule in RULE_LIST if "record" in rule]
    stage.traffic_until(lambda: [name for name in recorded if not stage.prometheus.query(name)])


def test_the_variables_of_the_dashboard_find_the_job(stage):
    job = next(v for v in DASHBOARD["templating"]["list"] if v["name"] == "job")
    metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", job["definition"]).groups()
    stage.traffic_until(lambda: [] if stage.prometheus.query(metric) else [metric])
    assert {series["metric"][label] for series in stage.prometheus.query(metric)} == set(job["current"]["value"])


@pytest.mark.parametrize(
    "expr",
    [expr for _, expr in QUERIES] + [rule["expr"] for rule in RULE_LIST],
    ids=[title for title, _ in QUERIES] + [rule.get("record") or rule["alert"] for rule in RULE_LIST],
)
def test_expressions_ask_for_what_is_exported(exported, expr):
    """Names, labels and their values: a rule about what is never exported would never fire."""
    recorded = {rule.get("record") for rule in RULE_LIST}
    for name, labels in re.findall(r"(?<![\w:])((?:\w+:)?(?:tierway|process)_[\w:]+)(?:\{(.*?)\})?", filled_in(expr)):
        if name in recorded:
            continue
        base = name if name in exported else re.sub("_(bucket|sum|count)$", "", name)
        assert base in exported, f"{name} is not exported"
        for label, operator, value in re.findall(r'(\w+)(=~|!~|!=|=)"(.*?)"', labels):
            assert label in TARGET_LABELS | set(exported[base][1]), f"{name} has no label {label}"
            known = REASONS if label == "reason" and "breaker" not in name else exported[base][1].get(label, {value})
            for each in value.split("|") if "~" in operator else [value]:
                assert each in known, f"{name}: {label} is never {each}"


def test_what_counts_as_the_clients_own_doing_is_the_same_everywhere():
    exprs = {rule.get("record"): rule["expr"] for rule in RULE_LIST}
    judged = re.search('reason!~"(.*?)"', exprs["job:tierway_requests_judged:rate5m"])[1]
    failed = re.search('reason!~"(.*?)"', exprs["job:tierway_requests_failed:rate5m"])[1]
    assert failed == f"served|{judged}"


def test_the_rules_do_what_they_say():
    tested = subprocess.run(["promtool", "test", "rules", "rules.test.yml"], cwd=HERE, capture_output=True, text=True)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_prometheus_takes_its_configuration():
    checked = subprocess.run(
        # The file of its token is on the machine that it runs on.
        ["promtool", "check", "config", "--syntax-only", RULES.parent / "prometheus.yml"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_dashboard_is_one_grafana_can_load():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert DASHBOARD["uid"] == "tierway" and "id" not in DASHBOARD
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    for panel in PANELS:
        for source in [panel["datasource"], *(target["datasource"] for target in panel["targets"])]:
            assert source == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        used = re.findall(r"\$(?!__)(\w+)", " ".join(target["expr"] for target in panel["targets"]))
        assert set(used) <= variables, panel["title"]
        assert panel["description"], panel["title"]


def test_panels_do_not_overlap():
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24, panel["title"]
        for cell in ((x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])):
            assert cell not in taken, f"{panel['title']} covers {taken[cell]}"
            taken[cell] = panel["title"]


def test_the_documentation_names_every_metric(exported):
    ours = {name: (kind, sorted(labels)) for name, (kind, labels) in exported.items() if name.startswith("tierway_")}
    row = r"^\| `(tierway_\w+)` \| (\w+) \| (.*?) \|"
    table = re.findall(row, (PROJECT / "docs/operations.md").read_text(), re.M)
    documented = {name: (kind, sorted(re.findall(r"`(\w+)`", labels))) for name, kind, labels in table}
    assert documented == ours
