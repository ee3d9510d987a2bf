"""docs/programs.md says what was run."""

import os

import pytest
from frameworks import FRAMEWORKS
from page import PAGE, page


def test_the_page_says_what_was_run(rows):
    if len(rows) < len(FRAMEWORKS) + 2:
        pytest.skip("not every program ran")
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(page(rows), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(rows), "make programs UPDATE_DOCS=1"
