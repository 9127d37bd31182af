"""Each publisher's layout as a small tree: what was put in comes out, and what cannot be used is listed."""

import csv
import io
import json
import shutil
import tarfile

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from pyarrow import parquet

from dgasr.cli import main
from dgasr.corpora.layouts import CORPORA, Subset
from dgasr.corpora.prepare import prepare
from dgasr.errors import ConfigError
from dgasr.manifests import read_manifest

CLIPS = {"7-1-0000": (0.5, "Guten Tag", "7"), "7-1-0001": (0.75, 'Er sagt "ja"', "7"), "9-2-0000": (1.0, "Zwei", "9")}
"""Name → length (s), text, speaker."""


def sound(duration_s, format="WAV"):
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.1 * np.sin(np.arange(round(duration_s * 16_000)) / 5), 16_000, format=format)
    return buffer.getvalue()


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def put_table(path, rows, head=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None)
        writer.writerows(([list(rows[0])] if head else []) + [list(row.values()) for row in rows])


def pack(archive, folder, inside):
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, inside)
    shutil.rmtree(folder)


def librispeech(root):
    for name, (duration_s, text, speaker) in CLIPS.items():
        chapter = root / "LibriSpeech" / "train-clean-100" / speaker / name.split("-")[1]
        put(chapter / f"{name}.flac", sound(duration_s, "FLAC"))
        with (chapter / f"{name.rsplit('-', 1)[0]}.trans.txt").open("a") as file:
            file.write(f"{name} {text.upper()}\n")
    return "train.clean.100"


def packed_librispeech(root):
    librispeech(root)
    pack(root / "train-clean-100.tar.gz", root / "LibriSpeech", "LibriSpeech")
    return "train.clean.100"


def fleurs(root):
    rows = []
    for name, (duration_s, text, _) in CLIPS.items():
        put(root / "train" / f"{name}.wav", sound(duration_s))
        rows.append(dict(enumerate(("17", f"{name}.wav", text, text.lower(), "", 1, "MALE"))))
    put_table(root / "data/de_de/train.tsv", rows, head=False)
    pack(root / "data/de_de/audio/train.tar.gz", root / "train", "train")
    return "train"


def unpacked_fleurs(root):
    fleurs(root)
    with tarfile.open(root / "data/de_de/audio/train.tar.gz") as tar:
        tar.extractall(root / "data/de_de/audio", filter="data")
    (root / "data/de_de/audio/train.tar.gz").unlink()
    return "train"


def voxpopuli(root):
    rows = []
    for name, (duration_s, text, speaker) in CLIPS.items():
        put(root / "transcribed_data/de/2009" / f"{name}.ogg", sound(duration_s, "OGG"))
        rows.append({"id": name, "raw_text": text, "normalized_text": "x", "speaker_id": speaker, "split": "train"})
    put_table(root / "transcribed_data/de/asr_train.tsv", rows)
    return "train"


def voxpopuli_of_the_hub(root):
    voxpopuli(root)
    (root / "transcribed_data").rename(root / "data")
    pack(root / "data/de/train/train_part_0.tar.gz", root / "data/de/2009", "2009")
    return "train"


def commonvoice(root):
    rows = []
    for name, (duration_s, text, speaker) in CLIPS.items():
        put(root / "cv-corpus-21/de/clips" / f"{name}.mp3", sound(duration_s, "MP3"))
        rows.append({"client_id": speaker, "path": f"{name}.mp3", "sentence": text, "up_votes": 2})
    put_table(root / "cv-corpus-21/de/train.tsv", rows)
    return "train"


def packed_commonvoice(root):
    commonvoice(root)
    pack(root / "cv-corpus-21-de.tar.gz", root / "cv-corpus-21", "cv-corpus-21")
    return "train"


def hub_dataset(root):
    rows = [
        {"id": name, "audio": {"bytes": sound(length_s), "path": f"{name}.wav"}, "sentence": text, "speaker_id": person}
        for name, (length_s, text, person) in CLIPS.items()
    ]
    (root / "data").mkdir(parents=True)
    parquet.write_table(pa.Table.from_pylist(rows[:2]), root / "data/train-00000-of-00002.parquet")
    parquet.write_table(pa.Table.from_pylist(rows[2:]), root / "data/train-00001-of-00002.parquet")
    return "train"


def audio_folder(root):
    for name, (duration_s, text, person) in CLIPS.items():
        put(root / "train" / f"{name}.wav", sound(duration_s))
        row = {"file_name": f"{name}.wav", "transcription": text, "speaker": person}
        with (root / "train/metadata.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
    return "train"


def audio_folder_with_a_table(root):
    audio_folder(root)
    rows = [json.loads(line) for line in (root / "train/metadata.jsonl").read_text().splitlines()]
    (root / "train/metadata.jsonl").unlink()
    with (root / "train/metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return "train"


def own_folder(root):
    for name, (duration_s, text, speaker) in CLIPS.items():
        put(root / speaker / f"{name}.wav", sound(duration_s))
        put(root / speaker / f"{name}.txt", text + "\n")
    return ""


def nemo(root):
    put(root / "long.wav", sound(sum(duration_s for duration_s, _, _ in CLIPS.values())))
    offset_s, lines = 0.0, []
    for duration_s, text, speaker in CLIPS.values():
        row = {"audio_filepath": "long.wav", "offset": offset_s, "duration": duration_s, "text": text}
        lines.append(json.dumps(row | {"speaker": speaker, "lang": "de"}))
        offset_s += duration_s
    put(root / "manifest.json", "\n".join(lines))
    return ""


LAYOUTS = {
    librispeech: "librispeech", packed_librispeech: "librispeech", fleurs: "fleurs", unpacked_fleurs: "fleurs",
    voxpopuli: "voxpopuli", voxpopuli_of_the_hub: "voxpopuli", commonvoice: "commonvoice",
    packed_commonvoice: "commonvoice", hub_dataset: "hf", audio_folder: "hf", audio_folder_with_a_table: "hf",
    own_folder: "folder", nemo: "nemo",
}  # fmt: skip


def run(make, root, out):
    kind = LAYOUTS[make]
    name = make(root)
    source = root / "manifest.json" if kind == "nemo" else root
    subset = Subset(source=source, name=name, language=CORPORA[kind].language or "de", out=out)
    summary = prepare(kind, subset, 30.0, 1)
    return summary, read_manifest(out / f"{summary.name}.jsonl")


@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_clips_texts_speakers_and_hours_are_those_that_were_put_in(make, tmp_path):
    summary, utterances = run(make, tmp_path / "corpus", tmp_path / "out")
    folded = str.lower if LAYOUTS[make] == "librispeech" else str
    assert [u.text for u in utterances] == [folded(text) for _, text, _ in CLIPS.values()]
    tolerance = 0.06 if LAYOUTS[make] == "commonvoice" else 1e-3  # MP3 ends on a frame
    assert [u.duration for u in utterances] == pytest.approx([length for length, _, _ in CLIPS.values()], abs=tolerance)
    assert {u.language for u in utterances} == {"en" if LAYOUTS[make] == "librispeech" else "de"}
    if LAYOUTS[make] != "fleurs":  # which does not say who speaks
        assert [u.speaker for u in utterances] == [speaker for _, _, speaker in CLIPS.values()]
    assert (summary.num_clips, summary.refused) == (3, {})
    assert summary.hours * 3600 == pytest.approx(2.25, abs=3 * tolerance)
    assert json.loads((tmp_path / "out" / f"{summary.name}.summary.json").read_text())["lengths"] == {"0": 3}


@pytest.fixture
def faulty(tmp_path):
    """A corpus of which one clip is sound, and how each of the others is not."""
    root, rows = tmp_path / "corpus", []
    flac = sound(1.0, "FLAC")
    damaged = flac[: len(flac) // 2]
    files = {"sound": sound(1.0), "long": sound(3.0), "short": sound(0.05), "empty": b"", "cut": damaged, "text": b"hm"}
    for name, content in files.items():
        put(root / "de/clips" / f"{name}.wav", content)
    for name in [*files, "absent", "sound", "silent", "latin"]:
        said = {"silent": b"", "latin": "h\xf6rt".encode("latin-1")}.get(name, b"hallo")
        rows.append(b"\t".join([name.encode() + b".wav", said]))
    put(root / "de/clips/silent.wav", sound(1.0))
    put(root / "de/clips/latin.wav", sound(1.0))
    put(root / "de/train.tsv", b"\n".join([b"path\tsentence", *rows, b"\tnobody"]) + b"\n")
    return root


def test_each_clip_that_cannot_be_used_is_listed_with_its_reason(faulty, tmp_path):
    subset = Subset(source=faulty, name="train", language="de", out=tmp_path)
    summary = prepare("commonvoice", subset, 2.0, 1)
    listed = (tmp_path / f"{summary.name}.refused.jsonl").read_text().splitlines()
    found = {row["clip_id"]: row["reason"] for row in map(json.loads, listed)}
    assert found == {
        "long": "too_long", "short": "too_short", "empty": "empty_file", "cut": "truncated", "text": "unknown_format",
        "absent": "no_audio", "sound#7": "duplicate_id", "silent": "no_text", "latin": "not_utf8", "row 11": "bad_row",
    }  # fmt: skip
    assert [u.text for u in read_manifest(tmp_path / f"{summary.name}.jsonl")] == ["hallo"]
    assert sum(summary.refused.values()) == len(found)


def test_a_damaged_archive_gives_what_can_be_read_and_says_so_on_every_run(tmp_path):
    root, out = tmp_path / "corpus", tmp_path / "out"
    packed_librispeech(root)
    archive = root / "train-clean-100.tar.gz"
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) * 4 // 5])
    subset = Subset(source=root, name="train.clean.100", language="en", out=out)
    for _ in range(2):
        summary = prepare("librispeech", subset, 30.0, 1)
        assert summary.refused["damaged_archive"] == 1
        assert 1 <= summary.num_clips < 3


@pytest.mark.parametrize(
    ("rows", "language", "used", "refused"),
    [
        # An empty text says that nobody speaks, a missing one nothing.
        ([{"text": ""}, {"offset": 0.5}, {"audio_filepath": None, "text": "lost"}, "no JSON"], "en", [("", None)],
         {"bad_row": 2, "no_text": 1}),
        # A number is a text too, and the name of a language, a speaker or a set.
        ([{"text": 7, "lang": 7, "speaker": 7, "set": 7}], "en", [("7", None)], {}),
        # What no manifest can hold costs its own row, and not the manifest.
        ([{"text": "one", "offset": -1}, {"text": "two", "channel": -1}, {"text": "three", "duration": float("nan")},
          {"text": "four", "offset": 0.5}], "en", [("four", None)], {"bad_row": 3}),
        # Each channel is a clip of its own.
        ([{"text": "one", "channel": 0}, {"text": "two", "channel": 1}], "en", [("one", 0), ("two", 1)], {}),
        # A stretch, a language and a file that are not there.
        ([{"text": "one", "lang": "en"}, {"offset": 0.5, "duration": 0.9, "text": "two", "lang": "en"},
          {"offset": 0.25, "text": "three"}, {"audio_filepath": "folder.wav", "text": "four", "lang": "en"}], "",
         [("one", None)], {"beyond_end": 1, "no_language": 1, "unreadable": 1}),
    ],
)  # fmt: skip
def test_a_manifest_is_taken_row_by_row(tmp_path, rows, language, used, refused):
    put(tmp_path / "a.wav", sound(1.0))
    (tmp_path / "folder.wav").mkdir()
    lines = [row if isinstance(row, str) else json.dumps({"audio_filepath": "a.wav"} | row) for row in rows]
    put(tmp_path / "m.jsonl", "\n".join(lines))
    subset = Subset(source=tmp_path / "m.jsonl", name="m", language=language, out=tmp_path)
    summary = prepare("nemo", subset, 30.0, 1)
    assert [(u.text, u.channel) for u in read_manifest(tmp_path / f"{summary.name}.jsonl")] == used
    assert summary.refused == refused


def test_a_member_that_would_be_written_elsewhere_is_listed_and_the_rest_is_used(tmp_path):
    root, out = tmp_path / "corpus", tmp_path / "out"
    librispeech(root)
    with tarfile.open(root / "train-clean-100.tar.gz", "w:gz") as tar:
        evil = tarfile.TarInfo("../outside.flac")
        evil.size = 4
        tar.addfile(evil, io.BytesIO(b"evil"))
        tar.add(root / "LibriSpeech", "LibriSpeech")
    shutil.rmtree(root / "LibriSpeech")
    subset = Subset(source=root, name="train.clean.100", language="en", out=out)
    summary = prepare("librispeech", subset, 30.0, 1)
    assert (summary.num_clips, summary.refused) == (3, {"unsafe_member": 1})
    assert not list(tmp_path.rglob("outside.flac"))


def test_an_interrupted_run_goes_on_and_ends_as_one_that_was_not(tmp_path):
    root, out = tmp_path / "corpus", tmp_path / "out"
    voxpopuli(root)
    subset = Subset(source=root, name="train", language="de", out=out)

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("voxpopuli", subset, 30.0, 1, stop)
    progress = out / "voxpopuli-de-train.progress.jsonl"
    assert len(progress.read_text().splitlines()) == 1
    with progress.open("a") as file:
        file.write('{"clip_id": "7-1-00')  # what a kill leaves of a line
    (root / "transcribed_data/de/2009/7-1-0000.ogg").write_bytes(b"")  # is not looked at again
    summary = prepare("voxpopuli", subset, 30.0, 1)
    assert [u.text for u in read_manifest(out / "voxpopuli-de-train.jsonl")] == [text for _, text, _ in CLIPS.values()]
    assert (summary.num_clips, summary.refused, progress.exists()) == (3, {}, False)


@pytest.mark.parametrize("kind", [kind for kind in CORPORA if kind not in ("nemo", "folder")])
def test_a_corpus_that_is_not_there_names_what_is_expected(kind, tmp_path):
    subset = Subset(source=tmp_path, name="train.clean.100" if kind == "librispeech" else "train", language="de",
                    out=tmp_path / "out")  # fmt: skip
    with pytest.raises(ConfigError, match=r"not found\. Expected"):
        prepare(kind, subset, 30.0, 1)


def test_the_command_prepares_every_language_and_tells_of_refusals(tmp_path, capsys):
    own_folder(tmp_path / "corpus")
    put(tmp_path / "corpus/7/mute.wav", sound(1.0))
    arguments = ["corpora", "folder", str(tmp_path / "corpus"), "--out", str(tmp_path / "out"), "--processes", "1"]
    assert main([*arguments, "--language", "de,en"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("folder-de.jsonl: 3 clips, 0.00 h, 2 speakers; refused 1 (1 no_text), each in "
                             "folder-de.refused.jsonl")  # fmt: skip
    assert lines[1].startswith(str(tmp_path / "out" / "folder-en.jsonl"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["librispeech", ".", "--subset", "train-clean"], "has train.clean.100"),
        (["fleurs", "."], "--language"),
        (["commonvoice", ".", "--language", "de"], "--subset"),
        (["folder", "absent", "--language", "de"], "not there"),
        (["folder", ".", "--language", "de", "--download"], "no address"),
    ],
)
def test_what_cannot_be_prepared_is_a_wrong_request(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["corpora", *arguments, "--out", "out"]) == 2
    assert message in capsys.readouterr().err
