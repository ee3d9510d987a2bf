"""A front of the mock of OpenAI's API: it keeps what it gets, and sends a response as a stream where one is asked for.

The mock itself, `steady`, checks requests against the API description and answers from it, but never with a stream. The
gateway makes a stream of a whole chat completion, because hosts do that too, and of no response. Conversations are kept
here, as the tests read and delete what they were told to be there.
"""

import http.client
import json
import threading
from http.server import ThreadingHTTPServer
from urllib.parse import urlsplit

from quiet_http import QuietHandler
from stored_provider import StoredConversations


class SuiteConversations(StoredConversations):
    """Conversations under the ids that the suite asks for."""

    def new_id(self, kind: str) -> str:
        return {"conv": "conv_123", "msg": "msg_abc"}[kind]


class MockFront:
    """Listens on a port of the system's choice until `close`, in front of the mock at `url`."""

    def __init__(self, url: str):
        mock, bodies, conversations = urlsplit(url).netloc, [], SuiteConversations()

        class Handler(QuietHandler):
            def answer(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if body:
                    bodies.append(body)
                if self.path.startswith("/conversations"):
                    status, answer = conversations.answer(self.command, self.path, json.loads(body or b"{}"))
                    return self.reply(status, "application/json", json.dumps(answer).encode())
                behind = http.client.HTTPConnection(mock)
                headers = {name.lower(): value for name, value in self.headers.items()}
                behind.request(self.command, self.path, body or None, {**headers, "accept-encoding": "identity"})
                reply = behind.getresponse()
                data, kind = reply.read(), reply.headers.get("content-type", "")
                behind.close()
                if self.path == "/responses" and reply.status == 200 and json.loads(body).get("stream"):
                    data, kind = events(json.loads(data)), "text/event-stream"
                self.reply(reply.status, kind, data)

            def reply(self, status: int, kind: str, data: bytes):
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = answer

        self.bodies = bodies
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def events(response: dict) -> bytes:
    """The stream that ends with `response`."""
    begun = {**response, "status": "in_progress", "output": []}
    whole = {**response, "status": "completed"}
    sent = [{"type": f"response.{kind}", "response": of} for kind, of in [("created", begun), ("completed", whole)]]
    lines = [f"event: {event['type']}\ndata: {json.dumps({'sequence_number': n, **event})}\n\n" for n, event in enumerate(sent)]
    return "".join(lines).encode()
