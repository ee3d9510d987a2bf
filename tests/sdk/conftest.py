"""One gateway with its providers for the whole session; one client per test."""

import os

import pytest
from gateway import Stage
from openai import OpenAI

# Gateway and providers are on loopback, so a proxy of this machine must not be used.
os.environ["NO_PROXY"] = "127.0.0.1"


@pytest.fixture(scope="session")
def stage():
    with Stage() as stage:
        yield stage


@pytest.fixture
def connect(stage):
    """Makes clients as an application would: base URL and key, nothing else. Retries are off
    unless a test is about them."""
    clients = []

    def connect(key: str = stage.key, **options) -> OpenAI:
        options = {"max_retries": 0, "timeout": 30.0, **options}
        clients.append(OpenAI(base_url=f"{stage.url}/v1", api_key=key, **options))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def client(connect):
    return connect()
