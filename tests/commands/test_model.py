"""From a training run to a card, a folder and a Hub repository; and what a model is made of."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import soundfile
import torch
import yaml

from dgasr.manifests import Utterance, write_manifest
from dgasr.model.adapter import TARGETS, linear_layers
from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import unique_tensors
from dgasr.model.presets import full
from dgasr.transcriber import load


@pytest.fixture(autouse=True)
def fake_engine() -> None:
    """Not here: the real one."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one step on the bundled model, with the figures of its evaluation."""
    from dgasr.cli import main

    folder = tmp_path_factory.mktemp("runs")
    soundfile.write(folder / "one.wav", np.random.default_rng(0).normal(scale=0.1, size=16_000), 16_000)
    row = Utterance(audio_filepath=str(folder / "one.wav"), duration=1.0, text="one two", language="en",
                    speaker="ann", set_name="own calls")  # fmt: skip
    write_manifest(folder / "train.jsonl", [row])
    run = ["--runs", str(folder), "--run-name", "mine"]
    assert main(["train", str(folder / "train.jsonl"), *run, "--steps", "1", "--workers", "0", "--device", "cpu"]) == 0
    scored = ["evaluate", str(folder / "train.jsonl"), *run, "--max-steps", "1", "--json", str(folder / "f.json")]
    assert main(scored) == 0
    return folder / "mine" / "final", folder / "f.json"


@pytest.fixture
def carded(dgasr, trained):
    folder, figures = trained
    flags = ("--name", "me/mine", "--licence", "apache-2.0", "--data", "own calls=CC0", "--figures", figures)
    code, out, err = dgasr("model", "card", folder, *flags)
    assert code == 0, err
    assert "README.md: written" in out
    return folder


def test_a_card_says_what_the_run_and_its_evaluation_wrote_down(carded):
    card = (carded / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert (head["license"], head["language"], head["base_model"]) == ("apache-2.0", ["en"], "tiny")
    assert "| own calls | en | 1 | 0.000 | 1 | CC0 |" in card
    assert "1 steps of 4 x 3 rows, peak learning rate 0.0005, losses diffusion 1, autoregressive 1, ctc 1" in card
    assert "--model tiny --adapter me/mine" in card
    assert "| own calls | 1 | 0.0 | 1 | WER | 100.0 (100.0 to 100.0) |" in card


def test_a_card_without_a_licence_for_its_data_or_without_a_run_is_refused(dgasr, trained, tmp_path):
    flags = ("--name", "n", "--licence", "other")
    code, _, err = dgasr("model", "card", trained[0], *flags)
    assert (code, "under which licence own calls is" in err) == (2, True)
    code, _, err = dgasr("model", "card", tmp_path, *flags)
    assert (code, "no record of a run" in err) == (2, True)
    code, _, err = dgasr("model", "card", trained[0], *flags, "--data", "own calls=CC0", "--figures", trained[0])
    assert (code, "no figures" in err) == (2, True)


def test_what_is_published_into_a_folder_transcribes(dgasr, carded, tmp_path):
    code, out, _ = dgasr("model", "publish", carded, "--to", tmp_path / "out")
    assert (code, out) == (0, f"published: {tmp_path / 'out'}\n")
    assert load("tiny", adapter=str(tmp_path / "out")).identity.adapter_digest
    assert (tmp_path / "out" / "README.md").is_file()
    assert not (tmp_path / "out" / "run.json").exists()
    code, _, err = dgasr("model", "publish", carded, "--to", tmp_path / "out")
    assert (code, "is there already" in err) == (2, True)


def test_what_names_a_folder_of_this_machine_is_not_published(dgasr, carded, tmp_path):
    shutil.copytree(carded, tmp_path / "final")
    card = tmp_path / "final" / "README.md"
    card.write_text(card.read_text().replace("base_model: tiny", "base_model: /home/ann/models/base"))
    code, _, err = dgasr("model", "publish", tmp_path / "final", "--to", tmp_path / "out")
    assert (code, "README.md: names a folder of this machine" in err) == (2, True)


def test_a_folder_without_a_card_is_not_published(dgasr, trained, tmp_path):
    (tmp_path / "final").mkdir()
    code, _, err = dgasr("model", "publish", tmp_path / "final", "--to", tmp_path / "out")
    assert (code, "README.md" in err) == (2, True)


class Hub(BaseHTTPRequestHandler):
    """Takes an upload as the Hub does."""

    commits: list

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.headers.get("Authorization") != "Bearer hf_right":
            return self._answer({"error": "Invalid credentials"}, 401)
        if self.path == "/api/repos/create":
            return self._answer({"url": f"http://{self.headers['Host']}/me/mine", "id": "me/mine"})
        if self.path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            return self._answer(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        if not self.path.endswith("/commit/main"):
            return self._answer({"errors": [], "warnings": []})
        type(self).commits.append([json.loads(line) for line in body.splitlines()])
        return self._answer(
            {"commitUrl": f"http://{self.headers['Host']}/me/mine/commit/1", "commitOid": "1", "success": True}
        )

    def do_GET(self):
        self._answer({"id": "me/mine", "modelId": "me/mine", "sha": "0" * 40, "siblings": [], "type": "user"})

    def _answer(self, content, status=200):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_):
        pass


def test_a_hub_gets_every_file_and_a_wrong_token_is_told(carded, tmp_path):
    Hub.commits = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [sys.executable, "-m", "dgasr.cli", "model", "publish", str(carded), "--to", "hf:me/mine"]
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_TOKEN": "hf_right", "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path),
    }  # fmt: skip
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("published: http")
    sent = {row["value"]["path"]: row["value"]["content"] for row in Hub.commits[0] if row["key"] == "file"}
    assert sent.keys() == {"README.md", "adapter_config.json", "adapter_model.safetensors", "projector.safetensors",
                           "projector.json"}  # fmt: skip
    assert base64.b64decode(sent["README.md"]) == (carded / "README.md").read_bytes()
    refused = subprocess.run(command, env=environment | {"HF_TOKEN": "hf_wrong"}, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "hf auth login" in refused.stderr
    server.shutdown()


def test_a_probe_counts_without_loading(dgasr, tmp_path):
    code, out, _ = dgasr("model", "probe", "tiny", "--json", tmp_path / "p.json")
    assert code == 0
    figures = json.loads((tmp_path / "p.json").read_text())
    model = load("tiny")
    assert figures["parameters"]["all"] == pytest.approx(sum(p.numel() for p in model.parameters()), rel=1e-3)
    assert figures["digest"] == model.identity.digest
    assert figures["beside them GB"].keys() == {"canvas 8", "canvas 16", "canvas 32"}
    shapes = Counter(tuple(own.shape) for own in unique_tensors(model).values())
    listed = Counter()
    for own in figures["tensors"]:
        listed[tuple(own["shape"])] += own["count"]
    assert listed == shapes
    assert "    2 x projector.convs.*.weight [128, 128, 3]" in out


def test_a_probe_of_the_full_model_gives_the_published_counts(dgasr, tmp_path):
    code, out, _ = dgasr("model", "probe", "full", "--json", tmp_path / "p.json")
    assert code == 0
    assert "30 layers of 2816, 128 experts" in out
    assert "188 audio tokens" in out
    figures = json.loads((tmp_path / "p.json").read_text())
    assert figures["parameters"]["backbone"] == 25_250_986_752  # without vision
    assert figures["trained"] == {"projector": 19_472_896, "LoRA": 22_978_560, "share": 0.0017}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Shapes of the reference's file: both attention copies, names without prefix, no scale."""
    config, tensors = full(), {}
    with torch.device("meta"):
        model = AsrModel(config)
    for name, (outputs, inputs) in linear_layers(model).items():
        if re.fullmatch(TARGETS, name):
            short = name.replace("model.encoder.language_model.", "encoder.").replace("model.decoder.", "decoder.")
            tensors[f"{short}.lora_A.weight"] = torch.zeros(()).expand(16, inputs)
            tensors[f"{short}.lora_B.weight"] = torch.zeros(()).expand(outputs, 16)
    projector = {name: torch.zeros(()).expand(own.shape) for name, own in model.projector.state_dict().items()}
    path = tmp_path_factory.mktemp("reference") / "diffusion_asr_small.pt"
    torch.save({"projector": projector, "lora": tensors}, path)
    return path


def test_a_probe_tells_how_the_references_file_is_built(dgasr, published, tmp_path):
    code, out, err = dgasr("model", "probe", published, "--json", tmp_path / "p.json")
    assert code == 0, err
    figures = json.loads((tmp_path / "p.json").read_text())
    assert figures["parameters"] == {"projector": 19_472_896, "LoRA": 22_978_560, "all": 42_451_456}
    assert figures["LoRA"].startswith("rank 16, alpha 32 (taken: the file has none); k_proj, o_proj, q_proj, v_proj of")
    assert figures["LoRA"].endswith("of encoder and decoder, 230 layers")
    assert figures["projector"].startswith("3 convolutions of 3, 768 → 1024 → 1024 → 1024 → 2816 → 2816, no norms")
    assert figures["layout"] == "one file of tensors, projector and LoRA"
    assert figures["not told"][0] == "LoRA's scale"
    assert sum(own["count"] for own in figures["tensors"]) == 230 * 2 + 10
    assert len(figures["digest"]) == 32
    assert "   30 x lora.model.decoder.layers.*.self_attn.k_proj.lora_A.weight [16, 2816]" in out


def test_a_probe_tells_how_a_folder_is_built_and_refuses_what_fits_no_model(dgasr, trained, tmp_path):
    code, out, _ = dgasr("model", "probe", trained[0], "--model", "tiny")
    assert code == 0
    assert "3 convolutions of 3, 96 → 128 → 128 → 128 → 128 → 128, no norms; 8 frames per embedding" in out
    assert "a folder as PEFT has it" in out
    assert "k_proj, o_proj, q_proj, v_proj of encoder and decoder" in out
    code, _, err = dgasr("model", "probe", trained[0])
    assert (code, "do not fit model full" in err) == (2, True)
    code, _, err = dgasr("model", "probe", tmp_path)
    assert (code, "not an adapter" in err) == (2, True)
