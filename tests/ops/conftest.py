"""One gateway and one Prometheus for the whole session."""

import pytest
from stage import Stage


@pytest.fixture(scope="session")
def stage():
    with Stage() as stage:
        yield stage
