"""The comparison in fuzz.py: small, or as large as `make corpus ROUNDS=…` says."""

import os

import fuzz


def test_the_gateway_reads_what_the_official_client_reads():
    broken = fuzz.run(int(os.environ.get("CORPUS_ROUNDS", "1000")), int(os.environ.get("CORPUS_SEED", "1")))
    assert not broken, "\n\n" + "\n\n".join(broken)
