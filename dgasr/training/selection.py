"""Part of a manifest: some sets, some languages, and at most so many utterances, the same ones every time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from dgasr.errors import ConfigError
from dgasr.training.manifests import Utterance


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which utterances of a manifest are used; the default is all of them."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    languages: tuple[str, ...] = ()
    """Language codes as the manifest spells them; empty for every language."""
    sets: tuple[str, ...] = ()
    """Values of the field `set`; empty for every set."""
    limit: int = 0
    """Utterances at most, spread over the sets; 0 for all."""

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ConfigError(f"--limit {self.limit}: must be 1 or more, or 0 for all utterances.")


EVERYTHING = Selection()
"""All utterances of a manifest."""


def select_utterances(utterances: Sequence[Utterance], selection: Selection) -> list[Utterance]:
    """Choose utterances by set and language, then thin each set out to stay within the limit.

    Args:
        utterances: of one manifest, in its order.
        selection: which of them.

    Returns:
        The chosen utterances in the manifest's order. Under a limit each set (or language, where no set is named) gives
        an equal share, and small ones all they have; a share is spaced evenly over its set, so that a manifest
        sorted by speaker gives every speaker. Nothing is drawn at random: figures of two runs compare.

    Raises:
        ConfigError: a set or language that the manifest does not hold, or none of its utterances has both.
    """
    _check_known("--languages", selection.languages, {utterance.language for utterance in utterances})
    _check_known("--sets", selection.sets, {utterance.set_name or "" for utterance in utterances})
    chosen = [
        utterance
        for utterance in utterances
        if (not selection.languages or utterance.language in selection.languages)
        and (not selection.sets or utterance.set_name in selection.sets)
    ]
    if not chosen:
        raise ConfigError("No utterance is of these sets and of these languages. Leave out --sets or --languages.")
    if not selection.limit or selection.limit >= len(chosen):
        return chosen
    groups: dict[str, list[int]] = {}
    for n, utterance in enumerate(chosen):
        groups.setdefault(utterance.set_name or utterance.language, []).append(n)
    shares = _shares([len(group) for group in groups.values()], selection.limit)
    kept = sorted(
        group[i * len(group) // share]
        for group, share in zip(groups.values(), shares, strict=True)
        for i in range(share)
    )
    return [chosen[n] for n in kept]


def _shares(sizes: Sequence[int], limit: int) -> list[int]:
    """Divide a limit evenly over groups; what a small group cannot use goes to the others."""
    shares = [0] * len(sizes)
    for _ in range(limit):
        open_groups = [n for n, size in enumerate(sizes) if shares[n] < size]
        shares[min(open_groups, key=lambda n: shares[n])] += 1
    return shares


def _check_known(flag: str, wanted: Sequence[str], known: set[str]) -> None:
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ConfigError(
            f"{flag} {','.join(unknown)}: not in the manifest. It holds {', '.join(sorted(known - {''})) or 'none'}."
        )
