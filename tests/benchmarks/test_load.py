import json

import pytest

from benchmarks.__main__ import run


@pytest.mark.slow
def test_every_client_gets_the_text_of_a_batch_run(capsys, tmp_path):
    run("load", ["--clients", "3", "--seconds", "1", "--device", "cpu", "--json", str(tmp_path / "load.json")])
    figures = json.loads((tmp_path / "load.json").read_text())
    assert figures["statuses"].keys() == {"200"}
    assert figures["requests"] >= 3
    assert figures["wrong_texts"] == 0
    assert 0 < figures["p50_s"] <= figures["p99_s"]
    assert "share_of_batch" in capsys.readouterr().out
