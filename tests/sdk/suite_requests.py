"""A plugin of pytest for OpenAI's suite of responses: every request names a model, and asks for nothing that cannot be.

The suite leaves the model out, and puts every parameter there is into one request, among them pairs that exclude each
other; the mock takes that, and neither OpenAI nor the gateway does. What is changed is changed directly too.
"""

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
