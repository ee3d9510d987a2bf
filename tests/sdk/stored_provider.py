"""What the scripted provider keeps: responses, which are read, cancelled and deleted, with their input, and conversations."""

import secrets
from urllib.parse import parse_qs, urlsplit


def not_found(what: str, name: str) -> tuple[int, dict]:
    error = {"message": f"{what} with id '{name}' not found.", "type": "invalid_request_error", "param": None, "code": None}
    return 404, {"error": error}


class StoredResponses:
    """Responses by id. One that is made in the background is completed when it is asked for the second time."""

    def __init__(self):
        self.kept: dict[str, dict] = {}
        self.endings: dict[str, dict] = {}

    def keep(self, response: dict, ending: dict | None = None) -> dict:
        """Keeps `response`; `ending` is what becomes of one in the background."""
        self.kept[response["id"]] = response
        if ending:
            self.endings[response["id"]] = ending
        return response

    def answer(self, method: str, path: str) -> tuple[int, dict]:
        """Status and body for a request below `/v1/responses/`."""
        name, _, end = path.split("?")[0].removeprefix("/v1/responses/").partition("/")
        response = self.kept.get(name)
        if response is None:
            return not_found("Response", name)
        match method, end:
            case "DELETE", "":
                del self.kept[name]
                return 200, {"id": name, "object": "response.deleted", "deleted": True}
            case "POST", "cancel":
                self.endings.pop(name, None)
                self.kept[name] = {**response, "status": "cancelled"}
                return 200, self.kept[name]
            case "GET", "input_items":
                part = {"type": "input_text", "text": "Hi"}
                item = {"type": "message", "id": "msg_input", "role": "user", "status": "completed", "content": [part]}
                page = {"first_id": "msg_input", "last_id": "msg_input", "has_more": False}
                return 200, {"object": "list", "data": [item], **page}
            case _:
                self.kept[name] = {**response, **self.endings.pop(name, {})}
                return 200, response


class StoredConversations:
    """Conversations by id, each with its items, the oldest first."""

    def __init__(self):
        self.kept: dict[str, dict] = {}
        self.items: dict[str, list[dict]] = {}

    def new_id(self, kind: str) -> str:
        return f"{kind}_{secrets.token_hex(8)}"

    def add(self, conversation: str, items: list[dict]) -> list[dict]:
        """Adds `items`, as requests write them, to a conversation; returns them as they are kept."""
        kept = []
        for item in items:
            content = item["content"]
            parts = [{"type": "input_text", "text": content}] if isinstance(content, str) else content
            kept.append({"type": "message", "id": self.new_id("msg"), "status": "completed", **item, "content": parts})
        self.items[conversation] += kept
        return kept

    def answer(self, method: str, path: str, body: dict) -> tuple[int, dict]:
        """Status and body for a request to `/conversations` or below it, whatever stands before that."""
        url = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        name, _, rest = url.path.partition("/conversations")[2].removeprefix("/").partition("/")
        if not name:
            made = {"id": self.new_id("conv"), "object": "conversation", "created_at": 1}
            self.kept[made["id"]] = {**made, "metadata": body.get("metadata") or {}}
            self.items[made["id"]] = []
            self.add(made["id"], body.get("items") or [])
            return 200, self.kept[made["id"]]
        if name not in self.kept:
            return not_found("Conversation", name)
        if rest:
            return self._answer_items(method, name, rest.removeprefix("items").removeprefix("/"), query, body)
        match method:
            case "DELETE":
                del self.kept[name]
                return 200, {"id": name, "object": "conversation.deleted", "deleted": True}
            case "POST":
                self.kept[name] = {**self.kept[name], "metadata": body["metadata"]}
        return 200, self.kept[name]

    def _answer_items(self, method: str, conversation: str, item: str, query: dict, body: dict) -> tuple[int, dict]:
        kept = self.items[conversation]
        if item:
            found = next((one for one in kept if one["id"] == item), None)
            if found is None:
                return not_found("Item", item)
            if method == "DELETE":
                kept.remove(found)
                return 200, self.kept[conversation]
            return 200, found
        if method == "POST":
            return 200, page(self.add(conversation, body["items"]), has_more=False)
        asked = kept if query.get("order") == "asc" else kept[::-1]
        ids = [one["id"] for one in asked]
        first = ids.index(query["after"]) + 1 if query.get("after") in ids else 0
        shown = asked[first : first + int(query.get("limit", 20))]
        return 200, page(shown, has_more=first + len(shown) < len(asked))


def page(items: list[dict], has_more: bool) -> dict:
    ends = {"first_id": items[0]["id"] if items else "", "last_id": items[-1]["id"] if items else ""}
    return {"object": "list", "data": items, **ends, "has_more": has_more}
