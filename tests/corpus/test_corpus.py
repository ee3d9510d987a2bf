"""What real hosts send, through the gateway and directly: nothing that a client reads becomes unreadable, and no
missing end is hidden. README.md says what a case is.
"""

import os
from collections import Counter, defaultdict

import judge
import pytest
import through
from case import CASES, READERS, Case, load_all
from gateway import Gateway

LEAST_CASES = 150
# At how many places each body is cut in two.
PLACES = os.environ.get("CORPUS_PLACES", "4")
# The Node client's time grows with the square of a line's length. In bytes.
TOO_LARGE_FOR_NODE = 8 << 20
SEED = int(os.environ.get("CORPUS_SEED", "1"))


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return load_all()


@pytest.fixture(scope="module")
def provider(cases):
    provider = judge.serve(cases)
    yield provider
    provider.close()


@pytest.fixture(scope="module")
def gateway(cases, provider):
    gateway = Gateway(provider.url, [(case.name, case.gateway, case.endpoint) for case in cases])
    yield gateway
    gateway.close()


@pytest.fixture(scope="module")
def tried(cases, gateway):
    """Every case in each of its modes and cuts, through the gateway."""
    places = None if PLACES == "all" else int(PLACES)
    return through.run(gateway, [(case, mode, plan) for case in cases for mode in case.modes for plan in through.plans(case, places, SEED)])


def shown(problems: list[str]) -> str:
    return "\n".join(["", *problems[:60], f"{len(problems)} in all"])


def gathered(wrong: list[tuple[through.Tried, str]]) -> list[str]:
    """One line for each case and mode: what is wrong with its first cut, and how many more are wrong."""
    found = defaultdict(list)
    for one, what in wrong:
        found[f"{one.case.name} {one.mode}"].append((one.plan, what))
    return [f"{name}, {ones[0][0]} and {len(ones) - 1} more: {ones[0][1]}" for name, ones in sorted(found.items())]


def test_every_case_is_written_in_full(cases):
    problems = [f"{case.name} is not as `dump` writes it" for case in cases if case.dump() != (CASES / f"{case.name}.toml").read_text()]
    for case in cases:
        for mode in case.modes:
            problems += [f"{case.name} {mode}: nothing of {reader}" for reader in READERS if reader not in case.verdicts(mode)]
    assert not problems, shown(problems)
    assert len(cases) >= LEAST_CASES


def test_the_rule_is_kept_by_what_is_written(cases):
    """Where a client gets all of an answer directly, it gets the same through the gateway; no end is invented."""
    problems = []
    for case in cases:
        for mode in case.modes:
            found = case.verdicts(mode)
            direct = [found[reader] for reader in ("python", "node")]
            if "answer" in direct and found["tierway"] != "answer":
                problems.append(f"{case.name} {mode}: {direct} directly, {found['tierway']} through the gateway")
            if not (found["tierway"] == "answer" or found["tierway"].startswith("error: ")):
                problems.append(f"{case.name} {mode}: a client would not notice {found['tierway']}")
            if found["tierway"] == "answer" and not case.answer:
                problems.append(f"{case.name} {mode}: there is no [answer]")
    assert not problems, shown(problems)


def test_the_clients_still_get_directly_what_is_written(cases, provider):
    problems = []
    for (name, mode), found in judge.direct(cases, provider.url).items():
        case = next(case for case in cases if case.name == name)
        for reader, got in found.items():
            now = got.verdict(case.answer)
            if now != case.verdicts(mode)[reader]:
                problems.append(f"{name} {mode}: {reader} gets {now!r}, not {case.verdicts(mode)[reader]!r} ({got.detail})")
    assert not problems, shown(problems)


def test_every_case_through_the_gateway_however_it_is_cut(tried):
    failed = {one.case.name + " " + one.mode for one in tried if one.fails}
    wrong = []
    for one in tried:
        known = one.case.known_failing(one.mode)
        if one.fails and not known:
            wrong.append((one, f"{one.verdict!r}, not {one.expected!r} ({one.got.detail})"))
        elif known and f"{one.case.name} {one.mode}" not in failed:
            wrong.append((one, "it is known as failing and does not fail: remove `known_failing`"))
    problems = gathered(wrong)
    ends = Counter(one.got.ends for one in tried)
    print(f"seed {SEED}: {len(tried)} requests through the gateway: {dict(ends)}")
    assert not problems, shown(problems)


def test_the_clients_get_no_less_through_the_gateway(cases, gateway):
    """Nor do they take for whole what is not. What a client cannot read directly it need not read through the gateway:
    what is good for another client is passed on."""
    tried = [case for case in cases if len(case.wire) < TOO_LARGE_FOR_NODE and not case.request.get("half_close")]
    jobs = [judge.Job(case, mode, f"{gateway.url}/v1", may_hang=False) for case in tried for mode in case.modes if not case.known_failing(mode)]
    problems = []
    for reader, ask in (("python", judge.ask_python), ("node", judge.ask_node)):
        for job, got in zip(jobs, ask(jobs)):
            written = job.case.verdicts(job.mode)
            now = got.verdict(job.case.answer)
            expected = (written["tierway"], written[reader])
            is_expected_error = got.ends == "error" and any(verdict.startswith("error: ") for verdict in expected)
            if now != written["tierway"] and not is_expected_error:
                problems.append(f"{job.case.name} {job.mode}: {reader} gets {now!r}, not {written['tierway']!r} ({got.detail})")
    print(f"{2 * len(jobs)} requests of the official clients through the gateway")
    assert not problems, shown(problems)


def test_what_is_counted(tried, gateway):
    """The access line has what `[receipt]` says, however the answer was cut."""
    names = {"input": "input_tokens", "cached": "cached_input_tokens", "output": "output_tokens", "reasoning": "reasoning_tokens", "estimated": "estimated"}
    wrong = []
    for one in tried:
        if not one.case.receipt or one.case.known_failing(one.mode):
            continue
        line = gateway.receipt(one.request_id)
        now = {name: line.get(names[name]) for name in one.case.receipt}
        if now != one.case.receipt:
            wrong.append((one, f"{now}, not {one.case.receipt}"))
    problems = gathered(wrong)
    assert not problems, shown(problems)
