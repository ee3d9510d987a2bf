"""What the gateway counts and charges is what `genai-prices` makes of the same answers, in each dialect, whole and streamed.

Its extractors know what a provider's API counts as input, and its data have real prices: of a cache that is read or written
for minutes or an hour, and of inputs above a size. The gateway is given these prices and answers of a scripted provider; its
access log says what it counted.
"""

import json
import os
import queue
import secrets
import subprocess
import tempfile
import threading
import urllib.request
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from gateway import PROJECT
from genai_prices import extract_usage
from genai_prices.types import TieredPrices, Usage

START_WITHIN_S = 30
KEY = f"sk-{secrets.token_hex(16)}"

# What stands for it in a configuration: their name of a price, and ours.
PRICES = {
    "input_mtok": "input",
    "cache_read_mtok": "cached_input",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "output_mtok": "output",
}


class Dialect:
    """How a provider's answers are written, and by which of the extractors they are read."""

    def __init__(self, path, protocol, provider, flavor, model, endpoints):
        self.path, self.protocol, self.provider, self.flavor, self.model = path, protocol, provider, flavor, model
        self.endpoints = endpoints

    def whole(self, usage) -> dict:
        raise NotImplementedError

    def events(self, usage) -> list[tuple[str | None, dict | str]]:
        raise NotImplementedError


class Chat(Dialect):
    def whole(self, usage):
        choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
        return {"model": self.model, "choices": [choice], "usage": usage}

    def events(self, usage):
        choice = {"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}
        return [(None, {"choices": [choice]}), (None, {"choices": [], "usage": usage}), (None, "[DONE]")]


class Responses(Dialect):
    def whole(self, usage):
        content = [{"type": "output_text", "text": "Hi", "annotations": []}]
        output = [{"type": "message", "id": "msg_1", "role": "assistant", "content": content}]
        head = {"id": "resp_1", "object": "response", "model": self.model, "status": "completed"}
        return {**head, "output": output, "usage": usage}

    def events(self, usage):
        begun = {"id": "resp_1", "status": "in_progress", "output": []}
        return [
            ("response.created", {"response": begun}),
            ("response.output_text.delta", {"item_id": "msg_1", "delta": "Hi"}),
            ("response.completed", {"response": self.whole(usage)}),
        ]


class Messages(Dialect):
    def whole(self, usage):
        content = [{"type": "text", "text": "Hi"}]
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": "end_turn",
            "usage": usage,
        }

    def events(self, usage):
        begun = {**self.whole({**usage, "output_tokens": 1}), "content": [], "stop_reason": None}
        ended = {name: value for name, value in usage.items() if name.startswith("output_tokens")}
        return [
            ("message_start", {"message": begun}),
            ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
            ("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": "Hi"}}),
            ("content_block_stop", {"index": 0}),
            ("message_delta", {"delta": {"stop_reason": "end_turn"}, "usage": ended}),
            ("message_stop", {}),
        ]


CHAT = Chat("/v1/chat/completions", "openai", "openai", "chat", "gpt-5", ["chat", "responses"])
RESPONSES = Responses("/v1/responses", "openai", "openai", "responses", "gpt-5", ["chat", "responses"])
MESSAGES = Messages("/v1/messages", "anthropic", "anthropic", "default", "claude-sonnet-4-5", ["messages"])


def chat(prompt, cached, completion, reasoning=0):
    return CHAT, {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": 0},
    }


def responses(given, cached, output, reasoning=0):
    return RESPONSES, {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": given + output,
    }


def messages(uncached, read, short, long, output):
    return MESSAGES, {
        "input_tokens": uncached,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": short + long,
        "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
        "output_tokens": output,
    }


ROWS = [
    chat(1000, 0, 200),
    chat(1000, 400, 200, 150),
    chat(7, 7, 1),
    responses(1000, 0, 200),
    responses(1000, 400, 200, 150),
    responses(7, 7, 1),
    messages(20, 0, 0, 0, 50),
    messages(20, 300, 0, 0, 50),
    messages(20, 300, 600, 0, 50),
    messages(20, 300, 600, 400, 50),
    messages(0, 0, 0, 5, 1),
    # Above the size from which all of it costs more, by the cache alone, and just not.
    messages(1, 200_000, 0, 0, 10),
    messages(1, 150_000, 50_000, 100, 10),
    messages(0, 200_000, 0, 0, 10),
]


class Provider(ThreadingHTTPServer):
    """Answers as its row says, streamed where that is asked for."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.row = ROWS[0]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        dialect, usage = self.server.row
        if not asked.get("stream"):
            return self.answer("application/json", json.dumps(dialect.whole(usage)))
        stream = ""
        for name, event in dialect.events(usage):
            data = event if isinstance(event, str) else json.dumps({**({"type": name} if name else {}), **event})
            stream += f"event: {name}\ndata: {data}\n\n" if name else f"data: {data}\n\n"
        self.answer("text/event-stream", stream)

    def answer(self, content_type, body):
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


def theirs(dialect, usage):
    """What they make of a whole answer."""
    return extract_usage(dialect.whole(usage), provider_id=dialect.provider, api_flavor=dialect.flavor)


def price_of(model):
    """The price of a model of theirs as we write it."""
    now = model.get_prices(datetime.now(UTC))
    parts, above = {}, {}
    for name, ours in PRICES.items():
        price = getattr(now, name, None)
        if isinstance(price, TieredPrices):
            for tier in price.tiers:
                above.setdefault(tier.start, {})[ours] = tier.price
            price = price.base
        if price is not None:
            parts[ours] = price
    written = [f'{name} = "{price}"' for name, price in parts.items()]
    tiers = [
        "{ tokens = %d, %s }" % (start, ", ".join(f'{name} = "{price}"' for name, price in prices.items()))
        for start, prices in sorted(above.items())
    ]
    if tiers:
        written.append(f"above = [{', '.join(tiers)}]")
    return f"{{ {', '.join(written)} }}"


@pytest.fixture(scope="module")
def provider():
    provider = Provider()
    yield provider
    provider.shutdown()


@pytest.fixture(scope="module")
def gateway(provider):
    """The gateway's address, and the lines of its access log."""
    parts = ['[[keys]]\nname = "app"\npolicy = "all"\nsecret = "env:SDK_KEY"\n[policies.all]\nmodels = ["*"]\n']
    for dialect in [CHAT, MESSAGES]:
        some = next(usage for of, usage in ROWS if of is dialect)
        model = theirs(dialect, some).model
        parts.append(
            f'[providers.{dialect.provider}]\nprotocol = "{dialect.protocol}"\nbase_url = "{provider.url}"\n'
            f'[models."{dialect.model}"]\nendpoints = {json.dumps(dialect.endpoints)}\nprice = {price_of(model)}\n'
            f'deployments = [{{ provider = "{dialect.provider}" }}]\n'
        )
    with tempfile.TemporaryDirectory(prefix="tierway-genai-") as folder:
        config = Path(folder) / "tierway.toml"
        config.write_text("".join(parts), encoding="utf-8")
        process = subprocess.Popen(
            [os.environ.get("TIERWAY_BIN", PROJECT / "target/debug/tierway"), "serve", "--config", config],
            cwd=folder,
            env={"PATH": os.environ.get("PATH", ""), "TIERWAY__SERVER__LISTEN": "127.0.0.1:0", "SDK_KEY": KEY},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines = queue.Queue()
        threading.Thread(target=lambda: [lines.put(line) for line in process.stdout], daemon=True).start()
        seen = []
        while not (seen and seen[-1].startswith("listening on ")):
            try:
                seen.append(lines.get(timeout=START_WITHIN_S))
            except queue.Empty:
                pytest.fail("".join(seen))
        yield seen[-1].removeprefix("listening on ").strip(), lines
        process.terminate()
        process.wait(10)


def logged(lines, request_id):
    """The line of the access log of one request."""
    while True:
        line = lines.get(timeout=START_WITHIN_S)
        if line.startswith("{") and request_id in line:
            found = json.loads(line)
            if found.get("target") == "access":
                return found


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0].path.rsplit('/', 1)[-1]} {list(row[1].values())}")
def test_as_they_count(gateway, provider, row, streamed):
    url, lines = gateway
    provider.row = row
    dialect, usage = row
    body = {"model": dialect.model, "stream": streamed}
    if dialect is RESPONSES:
        body |= {"input": "Hi"}
    else:
        body |= {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    request = urllib.request.Request(f"{url}{dialect.path}", json.dumps(body).encode(), headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        answer.read()
        line = logged(lines, answer.headers["x-request-id"])
    expected = theirs(dialect, usage)
    counted = expected.usage
    assert isinstance(counted, Usage)
    assert line["input_tokens"] == counted.input_tokens
    assert line["cached_input_tokens"] == (counted.cache_read_tokens or 0)
    assert line["output_tokens"] == counted.output_tokens
    assert line["estimated"] is False
    assert Decimal(line["cost_usd"]) == expected.calc_price().total_price
