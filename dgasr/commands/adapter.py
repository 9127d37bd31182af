"""`dgasr adapter`: bring a published adapter into a folder, write one in the published form.

What a published file does not tell is given, or chosen by clips whose text is known; it is never guessed.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dgasr.commands.arguments import finite_float, positive_int
from dgasr.commands.model import adapter_figures, figures_text, read_stored
from dgasr.errors import ConfigError

if TYPE_CHECKING:
    from dgasr.calibrator import Calibration
    from dgasr.model.adapter import StoredAdapter
    from dgasr.model.presets import AsrConfig


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("adapter", help="import and export adapters (`dgasr model probe` looks into them)")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    about = {
        "import": "write an adapter as a folder that PEFT and this project read",
        "export": "write an adapter as one file, as the reference publishes it",
    }
    for name, what in about.items():
        add = actions.add_parser(name, help=what).add_argument
        add("source", metavar="FILE|DIR|HUB_ID", help="projector and LoRA")
        add("--model", default="full", metavar="tiny|full|DIR", help="it is for (default: full)")
        scale = "LoRA's alpha / rank where a file has none (import: given or chosen, else the model's)"
        add("--scale", type=finite_float, metavar="S", help=scale)
        add("--out", type=Path, required=True, metavar="DIR" if name == "import" else "FILE.pt")
        if name == "import":
            _add_calibration(actions.choices[name])
    parser.set_defaults(run=run)


def _add_calibration(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what a .pt file does not tell: given, or chosen by --clips")
    add = group.add_argument
    add("--clips", metavar="MANIFEST|bundled", help="speech with known text to choose by; bundled: four English ones")
    add("--activation", choices=("gelu", "relu", "silu"), help="between the projector's layers")
    add("--wording", action="append", metavar="TEMPLATE|model", help="prompt with {audio}; several to try")
    add("--blank", metavar="ID|unknown", help="CTC's blank (default: what silence says)")
    add("--device", default="auto", metavar="auto|cpu|cuda|cuda:N", help="to choose on (default: %(default)s)")
    add("--max-steps", type=positive_int, default=8, metavar="N", help="while choosing (default: %(default)s)")
    add("--batch-size", type=positive_int, default=8, metavar="N", help="while choosing (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Read, say what it is, and write."""
    from dgasr.model.adapter import write_file

    if options.out.exists():
        raise ConfigError(f"--out {options.out}: is there already. Name another, or remove it.")
    stored, config = read_stored(options.source, options.model, options.scale)
    figures = adapter_figures(options.source, stored, config)
    sys.stdout.write(figures_text({name: value for name, value in figures.items() if name != "tensors"}))
    if options.action == "import":
        _import(options, stored, config)
    else:
        write_file(stored, options.out)
    return 0


def _import(options: argparse.Namespace, stored: "StoredAdapter", config: "AsrConfig") -> None:
    """Write a folder; of a file that leaves something open, with what was given or chosen."""
    from dataclasses import replace

    from dgasr.calibrator import Calibration, Setting
    from dgasr.model.adapter import with_scale, write_folder

    if stored.found is None:
        write_folder(stored, options.out)
        return
    templates = [config.prompt.template if given == "model" else given for given in options.wording or ()]
    if any(template.count("{audio}") != 1 for template in templates):
        raise ConfigError(f"--wording {templates}: a prompt holds {{audio}} once. Write where the audio goes.")
    scale = None if stored.found.alphas else options.scale
    if options.clips:
        calibration = _calibration(options, stored, config, scale, templates)
    else:
        missing = {
            "--scale": scale is None and not stored.found.alphas, "--activation": options.activation is None,
            "--wording": len(templates) != 1, "--blank": options.blank is None,
        }  # fmt: skip
        if any(missing.values()):
            flags = ", ".join(flag for flag in missing if missing[flag])
            raise ConfigError(
                f"{options.source} does not tell {flags}, and a wrong one gives fluent wrong text. Give them, or "
                "--clips (`bundled`, or a manifest) to choose by."
            )
        chosen = Setting(scale=scale, activation=options.activation, wording=templates[0])
        calibration = Calibration(chosen=chosen, blank_id=_blank(options.blank), blank_share=None, clips="")
    layout = replace(stored.layout, activation=calibration.chosen.activation)
    write_folder(with_scale(replace(stored, layout=layout), calibration.chosen.scale), options.out)
    calibration.save(options.out)
    if calibration.blank_id is None:
        sys.stderr.write("the CTC blank is not known: no text will be rescored, and word times are spread evenly\n")


def _calibration(
    options: argparse.Namespace, stored: "StoredAdapter", config: "AsrConfig", scale: float | None, templates: list[str]
) -> "Calibration":
    """Load the model with the adapter, and choose by clips what was not given."""
    from dataclasses import replace

    from dgasr.calibrator import ACTIVATIONS, SCALES, Setting, calibrate, wordings
    from dgasr.samples import SPEECH
    from dgasr.transcriber import load

    def tell(setting: Setting) -> None:
        shown = "as stated" if setting.scale is None else f"{setting.scale:g}"
        sys.stdout.write(f"  WER {setting.wer:7.1%}  scale {shown}, {setting.activation}, {setting.wording!r}\n")

    has_scale = scale is not None or (stored.found is not None and stored.found.alphas)
    chosen = calibrate(
        load(options.model, adapter=options.source, device=options.device, merge_adapter=False, compiled=False),
        SPEECH if options.clips == "bundled" else Path(options.clips),
        (scale,) if has_scale else SCALES,
        (options.activation,) if options.activation else ACTIVATIONS,
        templates or wordings(config.prompt.template),
        max_steps=options.max_steps, batch_size=options.batch_size, on_setting=tell,
    )  # fmt: skip
    return chosen if options.blank is None else replace(chosen, blank_id=_blank(options.blank), blank_share=None)


def _blank(text: str) -> int | None:
    if text == "unknown":
        return None
    if not text.isdecimal():
        raise ConfigError(f"--blank {text}: give an id of the vocabulary, or `unknown`.")
    return int(text)
