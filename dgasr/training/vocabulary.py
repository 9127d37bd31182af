"""A tokenizer whose tokens are whole words, for models that know few of them."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers

from dgasr.model.identity import TOKENIZER_FILE


def write_word_tokenizer(folder: Path, special_tokens: Sequence[str], words: Sequence[str]) -> None:
    """Write `tokenizer.json`: special tokens get the first ids, words the next.

    Args:
        folder: created if missing.
        special_tokens: never part of a text; `<unk>` must be among them.
        words: what texts are made of.
    """
    ids = {token: index for index, token in enumerate([*special_tokens, *words])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(list(special_tokens))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / TOKENIZER_FILE))
