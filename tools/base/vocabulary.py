"""Cut Gemma's vocabulary of 262,144 pieces to the few thousand that transcripts need.

In: lower-case text and Gemma's `tokenizer.json`. Out: `tokenizer.json` of the small vocabulary, for each of its ids the
row of Gemma's embedding matrix (`gemma_rows.json`), so that the language head stays Gemma's own, and the text's words
(`words.txt`).

The pieces are those that byte-pair encoding merges first on our own text, as far as Gemma has them too. Few and short
pieces on purpose: of 11 h of speech most whole words occur once, and a CTC head cannot learn a word from one example.
"""

import argparse
import json
import lzma
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from dgasr.prompt import WORD_LIST_FILE, WordList

SPECIAL_TOKENS = {
    "<pad>": "<pad>", "<eos>": "<eos>", "<bos>": "<bos>", "<unk>": "<unk>", "<blank>": "<mask>",
    "<|audio|>": "<unused0>", "<boa>": "<unused1>", "<eoa>": "<unused2>",
    "<English>": "▁English", "<German>": "▁German", "<French>": "▁French", "<Spanish>": "▁Spanish",
    "<Hindi>": "▁Hindi", "<Chinese>": "▁Chinese",
}  # fmt: skip
"""Our special tokens, ids 0, 1, …, and the Gemma piece whose embedding each takes."""

KEPT = re.compile(r"[^\w' ]+|_")
"""What is dropped from text: all but letters, digits and apostrophes."""

SPELT = re.compile(r"[a-z']+")
"""What an English word is made of; the books have some Greek, and words cut in two by accents."""

FEWEST = 2
"""How often a word occurs in text and transcripts before it is one, and no slip."""


def plain(text: str) -> str:
    """Lower-case a text and drop its punctuation, as the transcripts of most corpora are written."""
    text = text.lower().replace("\u2019", "'").replace("`", "'")
    words = [word.strip("'") if word.strip("'") else "" for word in KEPT.sub(" ", text).split()]
    return " ".join(word for word in words if word)


def read_lines(paths: Iterable[Path]) -> Iterator[str]:
    """Yield the sentences of `.xz` files with one a line, each with its line's end."""
    for path in paths:
        with lzma.open(path, "rt", encoding="utf-8") as file:
            yield from file


def is_spoken_form(text: str) -> bool:
    """Tell whether a plain text can be read aloud in one way only: no digits."""
    return not any(character.isdigit() for character in text)


def train_pieces(lines: Iterable[str], num_pieces: int, gemma: set[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Learn pieces and merges that Gemma's vocabulary holds.

    Args:
        lines: plain texts.
        num_pieces: how many to learn at most, single characters among them.
        gemma: pieces of Gemma's vocabulary.

    Returns:
        The pieces, single characters first, and the merges that make the others, in order.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=num_pieces, show_progress=False, limit_alphabet=120)
    )
    model = json.loads(tokenizer.to_str())["model"]
    made = {left + right for left, right in model["merges"]}
    pieces = {piece for piece in model["vocab"] if piece not in made and piece in gemma}
    merges = []
    for left, right in model["merges"]:
        if left in pieces and right in pieces and left + right in gemma:
            pieces.add(left + right)
            merges.append((left, right))
    order = sorted(pieces, key=lambda piece: (len(piece) > 1, model["vocab"][piece]))
    return order, merges


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("gemma", type=Path, help="folder with Gemma's tokenizer.json")
    parser.add_argument("out", type=Path)
    parser.add_argument("--text", type=Path, nargs="*", default=[], help="sentences, one a line, .xz")
    parser.add_argument("--manifest", type=Path, nargs="*", default=[], help="transcripts of training speech")
    parser.add_argument("--languages", nargs="*", default=["en"])
    parser.add_argument("--pieces", type=int, default=2000)
    options = parser.parse_args()
    gemma: dict[str, int] = json.loads((options.gemma / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    lines = [
        plain(row["text"])
        for path in options.manifest
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())
        if row["language"] in options.languages
    ]
    lines += map(plain, read_lines(options.text))
    lines = [line for line in lines if line and is_spoken_form(line)]
    pieces, merges = train_pieces(lines, options.pieces, set(gemma))
    vocab = {piece: index for index, piece in enumerate([*SPECIAL_TOKENS, *pieces])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(options.out / "tokenizer.json"))
    rows = [gemma[source] for source in SPECIAL_TOKENS.values()] + [gemma[piece] for piece in pieces]
    (options.out / "gemma_rows.json").write_text(json.dumps(rows) + "\n", encoding="utf-8")
    counts = Counter(word for line in lines for word in line.split())
    WordList(word for word, count in counts.items() if count >= FEWEST and SPELT.fullmatch(word)).save(
        options.out / WORD_LIST_FILE
    )
    num_tokens = sum(len(encoded.ids) for encoded in tokenizer.encode_batch(lines[:20_000]))
    num_words = sum(len(line.split()) for line in lines[:20_000])
    print(f"{len(vocab)} pieces, {num_tokens / num_words:.2f} tokens a word")


if __name__ == "__main__":
    main()
