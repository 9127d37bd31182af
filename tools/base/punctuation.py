"""Teach a model's words capitals and punctuation, from text alone: books, and transcripts that have both.

In: a model folder, sentences, manifests. Out: `punctuation.pt`, resumable after a kill at any step, and with `--bundle`
a `punctuation.safetensors` in the model folder. With `--judge` it trains nothing, and prints how well that file writes
the texts of a manifest. A segment ends at a pause, anywhere in a sentence, so the texts do too; and since a recogniser
mishears, some of their words are others.
"""

import argparse
import json
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import load_model
from dgasr.model.punctuation import MARKS, PunctuationNetwork, Punctuator
from dgasr.prompt import Tokenizer
from tools.base.bundle import save_punctuation
from tools.base.optimizer import PartsOptimizer, rate_share
from tools.base.vocabulary import is_spoken_form, plain, read_lines

QUOTED = re.compile(r"[\"“”()\[\]*_]|(?<!\w)'|'(?!\w)")
"""Marks around words that nobody hears."""

DASHES = re.compile(r"--|—|\.\.\.|…")
"""What is heard as a pause in a sentence, as a comma is."""

LONGEST = 60
"""Words of a text: what is said in a window."""

NUM_SENTENCES = (1, 1, 2, 3, 4, 6)
"""How many follow each other, one as likely as the other."""

CUT = 0.3
"""Share of texts that begin in a sentence, and of those that end in one."""

MISHEARD = 0.15
"""Share of words, in every third text, that are others than those that were written."""


SHOUTED = -100
"""In place of whether a word has a capital, where all of it is in capitals: an emphasis or an abbreviation, which
cross-entropy passes over."""


class Written(NamedTuple):
    """A word, whether it is written with a capital, and the mark behind it, as its place in `MARKS`."""

    word: str
    has_capital: int
    mark: int

    @classmethod
    def of(cls, word: str) -> "Written":
        """Take a word with the case that it is written in."""
        return cls(word.lower(), SHOUTED if len(word) > 1 and word.isupper() else int(word[:1].isupper()), 0)


def parsed(text: str) -> list[Written]:
    """Take a text as people write it apart; its words are those of `plain`."""
    found: list[Written] = []
    for token in DASHES.sub(" - ", QUOTED.sub("", text.replace("\u2019", "'").replace("`", "'"))).split():
        body = re.sub(r"[^\w']+$", "", token)
        mark = next((MARKS.index(own) for own in token[len(body) :] if own in ".?!"), 0)
        mark = mark or int(any(own in ",;:-" for own in token[len(body) :]))
        words = [word.strip("'") for word in re.split(r"[^\w']+", body) if word.strip("'")]
        found += map(Written.of, words)
        if found and mark and not found[-1].mark:
            found[-1] = found[-1]._replace(mark=mark)
    return found


def written_texts(texts: Iterable[str]) -> list[list[Written]]:
    """Take texts apart that can be read in one way only."""
    taken = [(parsed(text), text) for text in texts if is_spoken_form(text)]
    return [own for own, text in taken if own and " ".join(word.word for word in own) == plain(text)]


def read_written(books: Sequence[Path], manifests: Sequence[Path]) -> tuple[list[list[Written]], list[list[Written]]]:
    """Read sentences of books, and texts of English speech that have capitals; those that can be read in one way."""
    rows = [json.loads(line) for path in manifests for line in path.read_text(encoding="utf-8").splitlines()]
    said = [row["text"] for row in rows if row["language"] == "en" and row["text"] != row["text"].lower()]
    return written_texts(read_lines(books)), written_texts(said)


class Texts:
    """Texts as segments have them, drawn from sentences.

    Args:
        tokenizer: of the model.
        pools: sentences of books, and of speech.
        speech_share: share of texts that are of speech.
    """

    def __init__(self, tokenizer: Tokenizer, pools: Sequence[list[list[Written]]], speech_share: float) -> None:
        self._pools, self._speech_share = pools, speech_share
        words = {word.word for pool in pools for sentence in pool for word in sentence}
        self._pieces = {word: tokenizer.encode_template(word) for word in sorted(words)}
        self._others = list(self._pieces)

    def draw(self, rng: random.Random) -> list[Written]:
        """Draw one."""
        pool, text = self._pools[rng.random() < self._speech_share], list[Written]()
        for _ in range(rng.choice(NUM_SENTENCES)):
            text += rng.choice(pool) if len(text) < LONGEST else []
        begin = rng.randrange(len(text)) if rng.random() < CUT else 0
        end = rng.randint(begin + 1, len(text)) if rng.random() < CUT else len(text)
        return text[begin : min(end, begin + LONGEST)]

    def heard(self, text: Sequence[Written], rng: random.Random) -> list[list[int]]:
        """Return the tokens of each word, some of them misheard."""
        share = MISHEARD if rng.random() < 1 / 3 else 0.0
        return [self._pieces[rng.choice(self._others) if rng.random() < share else own.word] for own in text]


def loss_of(network: PunctuationNetwork, texts: Sequence[Sequence[Written]], heard: list[list[list[int]]]) -> Tensor:
    """Compute the mean cross-entropy of marks and of capitals, nats."""
    marks, capitals = network(heard)
    wanted = torch.tensor([(word.mark, word.has_capital) for text in texts for word in text])
    return F.cross_entropy(marks, wanted[:, 0]) + F.cross_entropy(capitals, wanted[:, 1])


def scores(punctuator: Punctuator, texts: Sequence[Sequence[Written]]) -> dict[str, float]:
    """Compute F1, %, of commas, of ends of sentences (any of `.?!`), of question marks, and of capitals.

    The first word's capital is left out: nobody misses that one.
    """
    counts: dict[str, Counter[tuple[bool, bool]]] = {
        name: Counter() for name in ("comma", "end", "question", "capital")
    }
    for text in texts:
        found = punctuator.likeliest([own.word for own in text])
        for place, (own, (mark, has_capital)) in enumerate(zip(text, found, strict=True)):
            counts["comma"][mark == 1, own.mark == 1] += 1
            counts["end"][mark > 1, own.mark > 1] += 1
            counts["question"][mark == 3, own.mark == 3] += 1
            if place and own.has_capital != SHOUTED:
                counts["capital"][has_capital, bool(own.has_capital)] += 1
    return {
        name: round(200 * own[True, True] / max(1, 2 * own[True, True] + own[True, False] + own[False, True]), 1)
        for name, own in counts.items()
    }


def judge(model: AsrModel, manifest: Path) -> None:
    """Print how well a model's own punctuation writes the texts of a manifest, set by set."""
    assert model.punctuator, "this model folder has no punctuation"
    sets: dict[str, list[str]] = defaultdict(list)
    for row in map(json.loads, manifest.read_text(encoding="utf-8").splitlines()):
        if row["language"] == "en" and any(mark in row["text"] for mark in MARKS[1:]):
            sets[row["set"]].append(row["text"])
    for name, texts in sorted(sets.items()):
        written = written_texts(texts)
        found = scores(model.punctuator, written)
        print({"set": name, "texts": len(written), "words": sum(map(len, written)), **found})


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--text", type=Path, nargs="+", default=[], help="sentences, one a line, .xz")
    parser.add_argument("--manifest", type=Path, nargs="*", default=[], help="transcripts of training speech")
    parser.add_argument("--speech-share", type=float, default=0.15, help="of the texts, those of speech")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch-texts", type=int, default=64)
    parser.add_argument("--width", type=int, default=64, help="of embeddings")
    parser.add_argument("--hidden", type=int, default=96, help="of the recurrent layers")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--warmup", type=int, default=200)
    parser.add_argument("--held-out", type=int, default=4000, help="sentences that no training reads, the first ones")
    parser.add_argument("--save-steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bundle", action="store_true", help="write it into the model folder too, at the end")
    parser.add_argument("--judge", type=Path, help="manifest whose texts the model folder's own is measured on")
    options = parser.parse_args()
    model = load_model(options.model)
    if options.judge:
        judge(model, options.judge)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    books, said = read_written(options.text, options.manifest)
    tokenizer, share = model.tokenizer, options.speech_share if said else 0.0
    train = Texts(tokenizer, (books[options.held_out :], said), share)
    rng = random.Random(options.seed)
    validation = Texts(tokenizer, (books[: options.held_out], []), 0.0)
    held_out = [validation.draw(rng) for _ in range(500)]
    torch.manual_seed(options.seed)
    network = PunctuationNetwork(len(model.head_weight), options.width, options.hidden)
    del model
    learning = dict(network.named_parameters())
    optimizer = PartsOptimizer(learning, {"": options.rate}, is_muons=lambda name: False)
    state_path = options.out / "punctuation.pt"
    first = optimizer.resume(state_path)
    log, mean, began = (options.out / "punctuation.jsonl").open("a"), 0.0, time.time()
    for step in range(first, options.steps):
        optimizer.set_share(rate_share(step, options.warmup, options.steps))
        rng = random.Random(options.seed * 1_000_003 + step)
        texts = [train.draw(rng) for _ in range(options.batch_texts)]
        loss = loss_of(network, texts, [train.heard(text, rng) for text in texts])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        mean = 0.99 * mean + 0.01 * loss.item() if mean else loss.item()
        is_last = step + 1 == options.steps
        if (step + 1) % options.save_steps == 0 or is_last:
            row = {"step": step + 1, "loss": round(mean, 4), **scores(Punctuator(network, tokenizer), held_out),
                   "s_per_step": round((time.time() - began) / (step + 1 - first), 3)}  # fmt: skip
            log.write(json.dumps(row) + "\n")
            log.flush()
            print(row, flush=True)
            optimizer.save(state_path, step + 1)
    if options.bundle:
        save_punctuation(network, options.model)


if __name__ == "__main__":
    main()
