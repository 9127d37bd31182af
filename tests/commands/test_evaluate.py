import json
import re
from pathlib import Path

import pytest
import soundfile

from dgasr import baseline, evaluator
from dgasr.evaluation.report import Evaluation
from dgasr.evaluation.scores import ScoredSegment, ScoredUtterance
from dgasr.lake.ledger import rows_of
from dgasr.manifests import Selection, manifest_digest, read_manifest, select_utterances
from dgasr.model.identity import model_folder
from dgasr.samples import MANIFEST, SAMPLES
from dgasr.stages import engine

OWN_STEPS = 8
"""Denoising steps of a model that nobody asks for another number."""


def evaluation(max_steps: int, rescore: str) -> Evaluation:
    utterance = ScoredUtterance(
        audio_filepath="one.wav", language="en", audio_s=2.0, reference="one", hypothesis="one",
        segments=(ScoredSegment(num_words=1, num_steps=max_steps),),
    )  # fmt: skip
    return Evaluation(
        utterances=(utterance,), normalizer="basic", metric="wer", max_steps=max_steps, path="diffusion", wall_s=1.0,
        rescore=rescore,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer what was asked for, without a model."""
    monkeypatch.setattr(engine, "load_model", lambda config: None)
    monkeypatch.setattr(
        evaluator,
        "evaluate",
        lambda manifest, model, config, *_: evaluation(config.max_steps or OWN_STEPS, config.rescore),
    )


@pytest.fixture
def manifest(archive: Path, tmp_path: Path) -> Path:
    duration = soundfile.info(archive / "one.wav").duration
    row = {"audio_filepath": str(archive / "one.wav"), "duration": duration, "text": "one", "language": "en"}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(row))
    return tmp_path / "manifest.jsonl"


def test_how_the_text_was_found_is_said(dgasr, manifest: Path):
    assert "decoder   diffusion, rescored, at most 8 steps" in dgasr("evaluate", manifest)[1]
    _, out, _ = dgasr("evaluate", manifest, "--rescore", "none")
    assert "decoder   diffusion, at most 8 steps" in out


def test_figures_are_written_as_json(dgasr, manifest: Path, tmp_path: Path):
    code, _, _ = dgasr("evaluate", manifest, "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (code, figures["path"], figures["wer"]) == (0, "diffusion", 0.0)


def test_several_numbers_of_steps_are_laid_below_each_other(dgasr, manifest: Path, tmp_path: Path):
    _, out, _ = dgasr("evaluate", manifest, "--max-steps", "8,1,4", "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [row["steps"] for row in figures["by_steps"]] == [1, 4, 8]
    assert figures["steps"] == 8
    assert re.findall(r"^\| (\d+) \| 0.00 % \|", out, re.MULTILINE) == ["1", "4", "8"]
    assert "by_steps" not in dgasr("evaluate", manifest, "--max-steps", "8")[1]


def test_two_runs_are_compared_on_the_same_utterances(dgasr, manifest: Path, tmp_path: Path):
    dgasr("evaluate", manifest, "--json", tmp_path / "ours.json")
    text = (tmp_path / "ours.json").read_text()
    (tmp_path / "theirs.json").write_text(text.replace('"hypothesis": "one"', '"hypothesis": "two"'))
    _, out, _ = dgasr("evaluate", manifest, "--against", tmp_path / "theirs.json")
    assert f"baseline  {tmp_path / 'theirs.json'}: WER 100.00 %" in out
    assert "WER 0.00 (0.00 to 0.00) times the baseline's" in out


def test_a_run_on_other_utterances_and_what_is_no_run_are_refused(dgasr, manifest: Path, tmp_path: Path):
    dgasr("evaluate", manifest, "--json", tmp_path / "ours.json")
    figures = json.loads((tmp_path / "ours.json").read_text())
    figures["utterances"][0]["reference"] = "two"
    (tmp_path / "other.json").write_text(json.dumps(figures))
    code, _, err = dgasr("evaluate", manifest, "--against", tmp_path / "other.json")
    assert (code, "is of other utterances" in err) == (2, True)
    code, _, err = dgasr("evaluate", manifest, "--against", manifest)
    assert (code, "no figures of `dgasr evaluate --json`" in err) == (2, True)


def test_page_and_lake_get_the_figures_too(dgasr, manifest: Path, tmp_path: Path):
    lake = tmp_path / "lake"
    code, _, _ = dgasr("evaluate", manifest, "--html", tmp_path / "page.html", "--lake", lake)
    assert (code, "<title>tiny on manifest.jsonl</title>" in (tmp_path / "page.html").read_text()) == (0, True)
    rows = rows_of(str(lake), "evaluations", manifest_digest=manifest_digest(manifest))
    assert [(row["wer"], row["path"], row["max_steps"]) for row in rows] == [(0.0, "diffusion", 8)]
    assert manifest_digest(manifest, Selection(limit=1)) != manifest_digest(manifest)


def test_weights_are_named_by_their_folder_too(dgasr, manifest: Path, tmp_path: Path):
    (tmp_path / "runs/one").mkdir(parents=True)
    (tmp_path / "runs/one/run.json").write_text('{"base": "tiny"}')
    command = ("evaluate", manifest, "--runs", tmp_path / "runs", "--run-name", "one", "--ckpt")
    assert dgasr(*command, model_folder("tiny"))[0] == 0
    code, _, err = dgasr(*command, "best")
    assert (code, "has no weights yet" in err) == (2, True)


def test_json_in_a_folders_place_is_refused_before_the_model_is_loaded(dgasr, manifest: Path, tmp_path: Path):
    code, _, err = dgasr("evaluate", manifest, "--json", tmp_path, "--model", "nowhere")
    assert (code, "is a folder" in err) == (2, True)


@pytest.fixture
def whisper(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A faster-whisper that hears "two" in everything; the names that it was loaded by."""
    loaded: list[str] = []

    def load(name: str, num_threads: int) -> baseline.Baseline:
        loaded.append(name)
        return baseline.Baseline(name="faster-whisper", languages=("en",), recognise=lambda *_: "two")

    monkeypatch.setattr(baseline, "load_baseline", load)
    return loaded


def test_both_columns_come_from_one_run(dgasr, manifest: Path, tmp_path: Path, whisper):
    _, out, _ = dgasr("evaluate", manifest, "--baseline", "faster-whisper:ct2", "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert re.search(r"baseline  faster-whisper, \d+ threads each: WER 100.00 % \(100.00 to 100.00\), RTFx", out)
    assert "| language en | 1 | 0.0 |  | WER | 0.0 (0.0 to 0.0) | 100.0 (100.0 to 100.0) | 0.00 (0.00 to 0.00) |" in out
    assert (figures["wer"], figures["baseline"]["wer"], figures["groups"][0]["ratio"]) == (0.0, 1.0, 0.0)
    assert whisper == ["faster-whisper:ct2"]


def test_what_the_manifest_does_not_hold_is_refused_before_the_model_is_loaded(dgasr, manifest: Path):
    code, _, err = dgasr("evaluate", manifest, "--languages", "de,fr", "--model", "nowhere")
    assert (code, "--languages de,fr: not in the manifest" in err) == (2, True)


def test_missing_files_are_named_in_one_message_and_left_out_on_request(dgasr, tmp_path):
    rows = [json.loads(line) for line in MANIFEST.read_text().splitlines()][:4]
    for row in rows:
        row["audio_filepath"] = str(SAMPLES / row["audio_filepath"])
    for name, row in zip(("gone.wav", "away.wav"), rows, strict=False):
        row["audio_filepath"] = str(tmp_path / name)
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, err = dgasr("evaluate", manifest)
    assert (code, "2 audio files are not there" in err, "gone.wav" in err, "away.wav" in err) == (2, True, True, True)
    code, _, err = dgasr("evaluate", manifest, "--skip-missing")
    assert (code, "left out, since they are not there: 2" in err) == (0, True)
    kept = select_utterances(read_manifest(manifest), Selection(skip_missing=True))
    assert [utterance.text for utterance in kept] == [row["text"] for row in rows[2:]]


def test_a_missing_name_takes_one_line_of_the_message(dgasr, tmp_path):
    (tmp_path / "manifest.jsonl").write_text(
        '{"audio_filepath": "a\\u001b\\nb", "duration": 1.0, "text": "", "language": "en"}'
    )
    assert dgasr("evaluate", tmp_path / "manifest.jsonl")[2].splitlines()[1:] == [f"{tmp_path}/a\\x1b\\nb"]
