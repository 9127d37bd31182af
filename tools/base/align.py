"""Find when each word of a transcript is spoken, by the cross-attention of Whisper base.

In: speech with text. Out: for each clip the words' places in samples (`NAME_words.jsonl`, a line a clip), which break
CTC's first plateau as labels of frames and judge word times later. Goes on where a killed run stopped.

The method is that of `tools/reference_words.py`, in batches and in windows as short as the clips: forty clips a second
on two cores, where that one reads each in 30 s.
"""

import argparse
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor
from transformers import WhisperForConditionalGeneration

from dgasr.features import FeatureConfig, log_mel
from tools.base.fast import COMPUTE_DTYPE
from tools.base.speech import Clip, Speech
from tools.reference_words import ALIGNMENT_HEADS, FRAME_SAMPLES, token_onsets

WINDOWS_S = (2, 4, 8, 15, 30)
"""Lengths of window that clips are put into: less silence to read than in 30 s."""

PROMPT = ("<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")


def encoder_states(model: WhisperForConditionalGeneration, log_mel_windows: Tensor) -> Tensor:
    """Run Whisper's encoder on windows shorter than 30 s; [batch, mels, frames] → [batch, frames / 2, width]"""
    encoder = model.model.encoder
    states = F.gelu(encoder.conv2(F.gelu(encoder.conv1(log_mel_windows)))).transpose(1, 2)
    states = states + encoder.embed_positions.weight[: states.shape[1]]
    for layer in encoder.layers:
        states = layer(states, None)
        states = states[0] if isinstance(states, tuple) else states
    return encoder.layer_norm(states)


def word_places(attention: np.ndarray, word_of_token: list[int]) -> list[tuple[int, int]]:
    """Place words in frames.

    Args:
        attention: of the chosen heads over the audio, after softmax.  [heads, tokens, frames]
        word_of_token: which word each token belongs to; the last token ends the text and belongs to the word after all.

    Returns:
        First frame of each word and of what follows it; a pause before a word is part of it.
    """
    onsets = token_onsets(attention)
    firsts = [int(onsets[word_of_token.index(word)]) for word in range(word_of_token[-1] + 1)]
    return [(start, max(end, start + 1)) for start, end in pairwise(firsts)]


def batches(clips: list[tuple[int, Clip]], size: int) -> Iterator[tuple[int, list[tuple[int, Clip]]]]:
    """Group clips by the window that holds them, long ones together."""
    for low, high in zip((0, *WINDOWS_S), WINDOWS_S, strict=False):
        own = sorted(
            (item for item in clips if low * 16000 < item[1].num_samples <= high * 16000),
            key=lambda item: len(item[1].text),
        )
        step = max(2, size * 4 // high)
        for start in range(0, len(own), step):
            yield high, own[start : start + step]


@torch.no_grad()
def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--whisper", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=24, help="clips of 4 s a batch")
    options = parser.parse_args()
    out = options.cache / f"{options.manifest.stem}_words.jsonl"
    done = set()
    if out.is_file():
        lines = [line for line in out.read_text().splitlines(keepends=True) if line.endswith("\n")]
        out.write_text("".join(lines))
        done = {json.loads(line)["start"] for line in lines}
    speech = Speech(options.manifest, options.cache, ("en",))
    model = WhisperForConditionalGeneration.from_pretrained(
        options.whisper, dtype=COMPUTE_DTYPE, attn_implementation="eager"
    ).eval()
    tokenizer = Tokenizer.from_file(str(options.whisper / "tokenizer.json"))
    prompt = [tokenizer.token_to_id(token) for token in PROMPT]
    end = tokenizer.token_to_id("<|endoftext|>")
    todo = [(index, clip) for index, clip in enumerate(speech.clips) if clip.start not in done]
    count = 0
    with out.open("a") as file:
        for window_s, group in batches(todo, options.batch):
            config = FeatureConfig(window_samples=window_s * 16000)
            windows = np.empty((len(group), 80, window_s * 100), np.float32)
            rows, words_of = [], []
            for row, (_, clip) in enumerate(group):
                audio, pad = log_mel(speech.waveform(clip), config)
                windows[row] = pad
                windows[row, :, : audio.shape[1]] = audio
                ids, owner = [], []
                for number, word in enumerate(clip.text.split()):
                    own = tokenizer.encode(" " + word, add_special_tokens=False).ids
                    ids += own
                    owner += [number] * len(own)
                rows.append([*prompt, *ids, end])
                words_of.append([*owner, len(clip.text.split())])
            longest = max(map(len, rows))
            inputs = torch.tensor([[*own, *[end] * (longest - len(own))] for own in rows])
            states = encoder_states(model, torch.from_numpy(windows).to(COMPUTE_DTYPE))
            output = model.model.decoder(
                input_ids=inputs, encoder_hidden_states=states, output_attentions=True, use_cache=False
            )
            # The attention that predicts a token is that of the position before it.
            picked = (
                torch.stack([output.cross_attentions[layer][:, head] for layer, head in ALIGNMENT_HEADS], 1)
                .float()
                .numpy()
            )
            for row, (_, clip) in enumerate(group):
                owner = words_of[row]
                attention = picked[row][:, len(prompt) - 1 : len(prompt) - 1 + len(owner)]
                placed = word_places(attention[:, :, : max(len(owner), clip.num_samples // FRAME_SAMPLES)], owner)
                words = [[a * FRAME_SAMPLES, min(b * FRAME_SAMPLES, clip.num_samples)] for a, b in placed]
                file.write(json.dumps({"start": clip.start, "words": words}) + "\n")
            count += len(group)
            file.flush()
            if count % 480 < len(group):
                print(f"{count} of {len(todo)}", flush=True)


if __name__ == "__main__":
    main()
