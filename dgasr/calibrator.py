"""What an adapter's file does not tell, found by what it hears: LoRA's scale, activation, wording, and the CTC blank.

A wrong one of the first three gives fluent text that was not said, so each combination transcribes clips whose text is
known. A blank is what the projector says of silence.
"""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from dgasr.errors import ConfigError
from dgasr.evaluator import EvaluationConfig, evaluate
from dgasr.features import FeatureConfig, log_mel, whole_windows
from dgasr.manifests import read_manifest
from dgasr.model.asr import AsrModel
from dgasr.model.head import scan_vocabulary
from dgasr.model.identity import CALIBRATION
from dgasr.model.presets import Activation

SCALES = (0.5, 1.0, 2.0, 4.0)
"""What LoRA's update is multiplied by: the ratios of alpha and rank in use."""

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)

INSTRUCTIONS = (
    "{audio}Transcribe this speech in {language}.",
    "{audio}Transcribe this speech.",
    "Transcribe the following audio:{audio}",
    "Transcribe the audio to text.{audio}",
    "{audio}",
)
"""What a person might have asked; they replace the instruction of the model's own chat template."""

CLEAR_SHARE = 0.9
"""Of the embeddings of silence that must agree on the blank; CTC that was trained says little else there."""

USABLE_WER = 0.5
"""Word error rate above which no choice is better than another: all of them are wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One way to run an adapter, and how it did.

    scale: of LoRA; `None` for what the file states.
    activation: of the projector.
    wording: prompt template.
    wer: word error rate on the clips, 1 for 100 %; `None` where it was given and not measured.
    """

    scale: float | None
    activation: Activation
    wording: str
    wer: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What was chosen, and why."""

    chosen: Setting
    blank_id: int | None
    """Of CTC; `None` where silence does not show it."""
    blank_share: float | None
    """Of the embeddings of silence that say it; `None` where it was given."""
    clips: str
    """Manifest that the settings were tried on; empty where all was given."""
    tried: tuple[Setting, ...] = ()

    def save(self, folder: Path) -> None:
        """Write it into an adapter's folder, where `dgasr.model.identity.adapted` reads it."""
        fields: dict[str, Any] = asdict(self)
        text = json.dumps(fields.pop("chosen") | fields, indent=2, ensure_ascii=False)
        (folder / CALIBRATION).write_text(text + "\n", encoding="utf-8")


def wordings(template: str) -> tuple[str, ...]:
    """Give the templates that are tried: the model's own, and its chat with other instructions, if it is a chat."""
    head, start, rest = template.partition("<|turn>user\n")
    _, end, tail = rest.partition("<turn|>")
    others = [head + start + instruction + end + tail for instruction in INSTRUCTIONS] if end else []
    return tuple(dict.fromkeys([template, *others]))


def calibrate(
    model: AsrModel,
    clips: Path,
    scales: Sequence[float | None],
    activations: Sequence[Activation],
    templates: Sequence[str],
    *,
    max_steps: int | None,
    batch_size: int,
    on_setting: Callable[[Setting], None] = lambda setting: None,
) -> Calibration:
    """Try every combination on clips with known text, a manifest, and find the blank; the model keeps what was chosen.

    The adapter on the model is not merged. A scale of `None` stands for those it has, `max_steps` of `None` for the
    model's own number; `on_setting` is called with each combination once it is measured.

    Raises:
        ConfigError: clips that cannot be used, or none of the combinations hears what is said.
    """
    config = EvaluationConfig(normalizer="whisper", metric="wer", max_steps=max_steps, rescore="none")
    utterances, tried = read_manifest(clips), []
    for scale, activation, wording in itertools.product(scales, activations, templates):
        setting = Setting(scale=scale, activation=activation, wording=wording)
        apply(model, setting)
        wer = evaluate(utterances, model, config, batch_size).to_json()["wer"]
        tried.append(replace(setting, wer=round(wer, 4)))
        on_setting(tried[-1])
    best = min(tried, key=lambda setting: setting.wer if setting.wer is not None else np.inf)
    if best.wer is None or best.wer > USABLE_WER:
        raise ConfigError(
            f"{clips}: the best of {len(tried)} settings has a word error rate of {best.wer}: none of them is this "
            "adapter's. Is it for this model? Give its prompt by --wording, or train an adapter."
        )
    apply(model, best)
    blank_id, share = find_blank(model)
    return Calibration(
        chosen=best, blank_id=blank_id, blank_share=share, clips=str(clips),
        tried=tuple(sorted(tried, key=lambda setting: setting.wer or 0.0)),
    )  # fmt: skip


def apply(model: AsrModel, setting: Setting) -> None:
    """Let a model with an adapter run as a setting says."""
    if setting.scale is not None:
        for module in model.backbone.modules():
            scaling: Any = getattr(module, "scaling", None)
            if isinstance(scaling, dict):
                scaling["default"] = setting.scale
    layout = replace(model.config.projector, activation=setting.activation)
    model.projector.config = layout
    model.config = replace(
        model.config, projector=layout, prompt=replace(model.config.prompt, template=setting.wording)
    )  # fmt: skip


@torch.no_grad()
def find_blank(model: AsrModel) -> tuple[int | None, float]:
    """Find the CTC blank: what the projector says of silence, whole and with a faint noise.

    Returns:
        The id that most embeddings say, or `None` where fewer than `CLEAR_SHARE` agree; and their share.
    """
    config = model.config
    features = FeatureConfig(window_samples=config.window_samples, num_mel_bins=config.encoder["num_mel_bins"])
    noise = np.random.default_rng(0).standard_normal(config.window_samples).astype(np.float32)
    windows = whole_windows([log_mel(level * noise, features) for level in (0.0, 1e-5, 1e-4)], features)
    frames = model.encode_audio(torch.from_numpy(windows).to(model.device))
    ids = scan_vocabulary(model.projector(frames), model.head_weight, config.softcap, chunk=8192).ids.flatten()
    found, counts = ids.unique(return_counts=True)
    share = float(counts.max() / len(ids))
    return (int(found[counts.argmax()]) if share >= CLEAR_SHARE else None), round(share, 4)
