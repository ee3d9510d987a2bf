"""add.py makes a case of what was recorded, to the byte."""

import add
import case
import pytest
from case import Case, load_all

HEAD = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nDate: now\r\nTransfer-Encoding: chunked\r\n\r\n"
FRAME = 'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}'


@pytest.mark.parametrize(
    ("body", "expected"),
    [(f"{FRAME}\r\n\r\ndata: [DONE]\r\n\r\n", "answer"), (FRAME.replace('"stop"', "null") + "\n\n", "error: 200")],
    ids=["whole", "cut"],
)
def test_a_recorded_answer_becomes_a_case(tmp_path, monkeypatch, body, expected):
    for module in (add, case):
        monkeypatch.setattr(module, "CASES", tmp_path)
    (tmp_path / "head.txt").write_text(HEAD, newline="")
    (tmp_path / "body.txt").write_text(body, newline="")
    files = ["--headers", str(tmp_path / "head.txt"), "--body", str(tmp_path / "body.txt")]
    monkeypatch.setattr("sys.argv", ["add.py", "new", "--about", "New.", "--rule", "frames", *files])
    add.main()
    added = Case.load(tmp_path / "new.toml")
    assert added.wire == body.encode()
    assert added.reply["headers"] == ["Content-Type: text/event-stream"]
    assert added.stream["tierway"] == expected
    assert added.whole["tierway"] == ("answer" if expected == "answer" else "error: 502")
    assert added.stream["python"] == added.stream["node"] == ("answer" if expected == "answer" else "short")


def test_every_body_can_be_recorded():
    for known in load_all():
        again = Case("again", "", "frames")
        add.write_body(again.reply, known.wire)
        assert again.wire == known.wire, known.name
