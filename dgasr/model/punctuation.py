"""Words as they are said in, words as people write them out: capitals, and the mark behind a word. Knows no audio.

For models whose vocabulary has neither, and which so learn more from little speech. A word is the mean of its tokens'
embeddings; two recurrent layers read a segment's words forwards and backwards.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from dgasr.prompt import Tokenizer

MARKS = ("", ",", ".", "?", "!")
"""What may stand behind a word, in the order of the network's outputs."""

Text = Sequence[Sequence[int]]
"""The tokens of each word of a text."""


class PunctuationNetwork(nn.Module):
    """Says of each word how likely each mark follows it, and whether it has a capital.

    Args:
        num_pieces: tokens of the vocabulary.
        width: of their embeddings.
        hidden: of the recurrent layers, in either direction.

    Source:
        Tilk and Alumäe 2016, a bidirectional recurrent network, without its attention; both answers from one network as
        in Nguyen et al. 2019.
    """

    def __init__(self, num_pieces: int, width: int, hidden: int) -> None:
        super().__init__()
        self.pieces = nn.EmbeddingBag(num_pieces, width, mode="mean")
        self.context = nn.GRU(width, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.marks = nn.Linear(2 * hidden, len(MARKS))
        self.capitals = nn.Linear(2 * hidden, 2)

    def forward(self, texts: Sequence[Text]) -> tuple[Tensor, Tensor]:
        """Read texts, none of them empty.

        Returns:
            Logits of the words of all texts, one text behind the other: of `MARKS`, and of no capital and of one.
            [words, MARKS], [words, 2]
        """
        words = [word for text in texts for word in text]
        starts = torch.tensor([0, *(len(word) for word in words)]).cumsum(0)[:-1]
        embedded = self.pieces(torch.tensor([piece for word in words for piece in word]), starts)
        packed = pack_sequence(list(embedded.split([len(text) for text in texts])), enforce_sorted=False)
        states = torch.cat(unpack_sequence(self.context(packed)[0]))
        return self.marks(states), self.capitals(states)


class Punctuator:
    """Writes the words of one segment, on the host: so it depends on no other segment, and no device waits for it."""

    def __init__(self, network: PunctuationNetwork, tokenizer: Tokenizer) -> None:
        self.network, self._tokenizer = network, tokenizer

    @torch.no_grad()
    def likeliest(self, words: Sequence[str]) -> list[tuple[int, bool]]:
        """Say of each of a segment's words which mark follows, as its place in `MARKS`, and if it has a capital."""
        if not words:
            return []
        marks, capitals = self.network([[self._tokenizer.encode_template(word) for word in words]])
        return list(zip(marks.argmax(1).tolist(), map(bool, capitals.argmax(1).tolist()), strict=True))

    def written(self, words: Sequence[str]) -> list[str]:
        """Write words that a segment says in this order; a word stays one."""
        return [
            (word[:1].upper() + word[1:] if has_capital else word) + MARKS[mark]
            for word, (mark, has_capital) in zip(words, self.likeliest(words), strict=True)
        ]
