"""Find when each word of a transcript is spoken, by the cross-attention of Whisper base.

In: speech with text. Out: for each clip the words' places in samples (`NAME_words.jsonl`, a line a clip), which break
CTC's first plateau as labels of frames and judge word times later. Goes on where a killed run stopped.

Source:
    Radford et al. 2022 and openai/whisper's `timing.py`: dynamic time warping over the attention of the heads that
    follow the audio. The list of heads is the one published for Whisper base.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import median_filter
from speech import Clip, Speech
from tokenizers import Tokenizer
from torch import Tensor
from transformers import WhisperForConditionalGeneration

from dgasr.features import FeatureConfig, log_mel

HEADS = ((3, 1), (4, 2), (4, 3), (4, 7), (5, 1), (5, 2), (5, 4), (5, 6))
"""(decoder layer, head) of Whisper base whose attention follows the audio."""

FRAME_SAMPLES = 320
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


def warp(cost: np.ndarray) -> np.ndarray:
    """Find the cheapest monotonic path through a cost matrix.

    Args:
        cost: [tokens, frames]

    Returns:
        First frame of each token on the path.  [tokens]
    """
    tokens, frames = cost.shape
    total = np.full((tokens + 1, frames + 1), np.inf)
    total[0, 0] = 0.0
    # Along anti-diagonals every cell depends on earlier diagonals only, so each is one vector operation.
    for diagonal in range(2, tokens + frames + 1):
        rows = np.arange(max(1, diagonal - frames), min(tokens, diagonal - 1) + 1)
        columns = diagonal - rows
        before = np.minimum(
            total[rows - 1, columns - 1], np.minimum(total[rows - 1, columns], total[rows, columns - 1])
        )
        total[rows, columns] = cost[rows - 1, columns - 1] + before
    first = np.zeros(tokens, dtype=np.int64)
    row, column = tokens, frames
    while row > 0 and column > 0:
        first[row - 1] = column - 1
        steps = (total[row - 1, column - 1], total[row - 1, column], total[row, column - 1])
        step = int(np.argmin(steps))
        row, column = row - (step != 2), column - (step != 1)
    return first


def word_starts(attention: np.ndarray, word_of_token: list[int], num_frames: int) -> list[tuple[int, int]]:
    """Place words in frames.

    Args:
        attention: of the chosen heads over the audio, after softmax.  [heads, tokens, frames]
        word_of_token: which word each token belongs to; the last token ends the text.
        num_frames: frames that hold audio.
    """
    weights = attention[:, :, :num_frames]
    weights = (weights - weights.mean(1, keepdims=True)) / (weights.std(1, keepdims=True) + 1e-6)
    weights = median_filter(weights, (1, 1, 7)).mean(0)
    first = warp(-weights.astype(np.float64))
    count = max(word_of_token) if word_of_token[-1] > max(word_of_token[:-1], default=-1) else 0
    starts = [int(first[word_of_token.index(word)]) for word in range(count)]
    ends = [*starts[1:], int(first[-1])]
    return [(start, max(end, start + 1)) for start, end in zip(starts, ends, strict=True)]


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
        options.whisper, dtype=torch.bfloat16, attn_implementation="eager"
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
            states = encoder_states(model, torch.from_numpy(windows).to(torch.bfloat16))
            output = model.model.decoder(
                input_ids=inputs, encoder_hidden_states=states, output_attentions=True, use_cache=False
            )
            # The attention that predicts a token is that of the position before it.
            picked = torch.stack([output.cross_attentions[layer][:, head] for layer, head in HEADS], 1).float().numpy()
            for row, (_, clip) in enumerate(group):
                owner = words_of[row]
                attention = picked[row][:, len(prompt) - 1 : len(prompt) - 1 + len(owner)]
                placed = word_starts(attention, owner, max(len(owner), clip.num_samples // FRAME_SAMPLES))
                words = [[a * FRAME_SAMPLES, min(b * FRAME_SAMPLES, clip.num_samples)] for a, b in placed]
                file.write(json.dumps({"start": clip.start, "words": words}) + "\n")
            count += len(group)
            file.flush()
            if count % 480 < len(group):
                print(f"{count} of {len(todo)}", flush=True)


if __name__ == "__main__":
    main()
