"""What the scripted provider keeps of responses: they are read, cancelled and deleted, and their input is listed."""


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
            error = {"message": f"Response with id '{name}' not found.", "type": "invalid_request_error", "param": None}
            return 404, {"error": {**error, "code": None}}
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
