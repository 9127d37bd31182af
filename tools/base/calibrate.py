"""Give the model's CTC edges their offsets: word times of training speech in, the model folder's config out."""

import argparse
from dataclasses import replace
from pathlib import Path

from dgasr.manifests import read_manifest
from dgasr.model.checkpoint import load_model
from dgasr.model.identity import CONFIG_FILE
from tools.base.vocabulary import is_spoken_form, plain
from tools.calibration import fit_word_offsets


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="folder that `together` wrote")
    parser.add_argument("manifest", type=Path, help="training speech with `words`, by tools/reference_words.py")
    options = parser.parse_args()
    model = load_model(options.model)
    utterances = [
        replace(utterance, words=tuple(replace(word, word=plain(word.word)) for word in utterance.words))
        for utterance in read_manifest(options.manifest)
        if utterance.words and all(plain(word.word) and is_spoken_form(word.word) for word in utterance.words)
    ]
    start_ms, end_ms = fit_word_offsets(model, utterances)
    config = replace(model.config, start_offset_ms=round(start_ms, 1), end_offset_ms=round(end_ms, 1))
    config.save(options.model / CONFIG_FILE)
    print(f"starts {start_ms:+.1f} ms, ends {end_ms:+.1f} ms, of {len(utterances)} clips")


if __name__ == "__main__":
    main()
