"""Frameworks and SDKs that speak Responses or Messages do a task with two tools as at the provider itself, whole and
streamed, and raise wherever the provider breaks off."""

from dataclasses import dataclass

import pytest
from checks import ANSWER
from frameworks import FRAMEWORKS, Framework
from page import YES, Row
from scripted import SCENES

MODES = ("whole", "stream")
BROKEN = [("whole" if scene.startswith("whole") else "stream", scene) for scene in SCENES if scene != "good"]
#: What the gateway says of a stream, and of a whole answer.
SAID = ("The provider broke off: this answer is incomplete.", "ended before it was complete.")
TURNS = 3


@dataclass
class Ran:
    """How a framework did."""

    framework: Framework
    direct: dict[str, dict]
    good: dict[str, dict]
    broken: dict[tuple[str, str], dict]


@pytest.fixture(scope="session", params=FRAMEWORKS, ids=lambda framework: framework.name)
def ran(request, stage, rows) -> Ran:
    framework = request.param

    def case(mode, url, scene="good"):
        return {"mode": mode, "url": url, "model": f"{framework.name}/{scene}"}

    cases = [case(mode, stage.provider.url) for mode in MODES] + [case(mode, stage.tap.url) for mode in MODES]
    cases += [case(mode, stage.url, scene) for mode, scene in BROKEN]
    found = framework.run(cases, stage.key)
    outcomes = iter(found["outcomes"])
    direct = {mode: next(outcomes) for mode in MODES}
    good = {mode: next(outcomes) for mode in MODES}
    ran = Ran(framework, direct, good, {place: next(outcomes) for place in BROKEN})
    raised = {mode: set() for mode in MODES}
    for (mode, _), outcome in ran.broken.items():
        raised[mode].add(outcome.get("raised", "nothing").partition(":")[0])
    broken = "; ".join(f"{mode}: {', '.join(f'`{name}`' for name in sorted(raised[mode]))}" for mode in reversed(MODES))
    done = {mode: YES if good[mode] == direct[mode] else "not as directly" for mode in MODES}
    rows[framework.name] = Row(found["version"], done["whole"], done["stream"], broken)
    return ran


@pytest.mark.parametrize("mode", MODES)
def test_the_task_is_done_as_at_the_provider_itself(ran, mode):
    assert ran.direct[mode] == {"answer": ANSWER}
    assert ran.good[mode] == ran.direct[mode]


def test_every_byte_that_is_sent_arrives(ran, stage):
    model = f"{ran.framework.name}/good"
    sent = stage.tap.requests(model)
    assert len(sent) == 2 * TURNS
    arrived = [visit.body for visit in stage.provider.journal.of(model)]
    assert len(arrived) == 4 * TURNS, "of each turn one is direct"
    for visit in sent:
        assert visit.body in arrived


@pytest.mark.parametrize(("mode", "scene"), BROKEN, ids=lambda value: value)
def test_what_breaks_off_raises(ran, stage, mode, scene):
    outcome = ran.broken[mode, scene]
    print(f"{ran.framework.name} {mode} {scene}: {outcome}")
    assert any(said in outcome.get("raised", "") for said in SAID), outcome
    visits = stage.provider.journal.of(f"{ran.framework.name}/{scene}")
    assert visits, "it was asked"
    if scene.startswith("tool"):
        assert not any(b"12 degrees" in visit.body for visit in visits), "half a call is not made"
