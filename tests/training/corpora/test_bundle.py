from dgasr.training.corpora import ConnectedDigitsConfig, make_corpora
from dgasr.training.manifests import read_manifest


def test_every_manifest_is_written_with_the_number_of_utterances_told(fsdd, tmp_path):
    made = dict(make_corpora(fsdd, tmp_path / "out", ConnectedDigitsConfig(num_utterances=2), voices=None))
    assert {str(path.relative_to(tmp_path / "out")) for path in made} == {
        "fsdd-train.jsonl",
        "fsdd-valid.jsonl",
        "connected-valid/manifest.jsonl",
        "connected-train/manifest.jsonl",
        "fsdd-train-without-anna.jsonl",
        "fsdd-train-without-boris.jsonl",
        "connected-train/without-anna.jsonl",
        "connected-train/without-boris.jsonl",
        "connected-anna/manifest.jsonl",
        "connected-boris/manifest.jsonl",
    }
    assert all(len(read_manifest(path)) == number for path, number in made.items())


def test_a_left_out_speaker_is_not_trained_on(fsdd, tmp_path):
    list(make_corpora(fsdd, tmp_path / "out", ConnectedDigitsConfig(num_utterances=2), voices=None))
    rest = read_manifest(tmp_path / "out" / "fsdd-train-without-anna.jsonl")
    alone = read_manifest(tmp_path / "out" / "connected-anna" / "manifest.jsonl")
    calibration = read_manifest(tmp_path / "out" / "connected-train" / "without-anna.jsonl")
    heard = {utterance.speaker for utterance in (*rest, *calibration)}
    assert (heard, {utterance.speaker for utterance in alone}) == ({"boris"}, {"anna"})
