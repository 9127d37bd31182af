"""`dgasr doctor`: what is right and wrong with this machine, and what to do about it. Changes nothing.

The one exception: asked about an S3 prefix, it writes a probe object there and deletes it.
"""

import argparse
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from dgasr.errors import ConfigError, DgasrError

LOCK = Path(__file__).parents[2] / "requirements.lock"
"""The pinned versions; beside the package where it was installed from a checkout."""

MIN_FREE_BYTES = 5 * 10**9
"""Free disk space below which staged features of a long run may not fit: a few hundred hours of audio."""


FULL_CHECKPOINTS = ("openai/whisper-small", "google/diffusiongemma-26B-A4B-it")
"""What the full preset loads from the Hugging Face hub."""


Result = tuple[str, str]
"""What was found, and what to do about it; nothing to do where all is well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What was found about one thing, and what to do about it; nothing where all is well."""

    name: str
    level: Literal["ok", "warn", "fail"]
    message: str
    remedy: str


def examine(s3_uri: str | None = None) -> Iterator[Finding]:
    """Look at everything, in the order in which a person would.

    Args:
        s3_uri: `s3://bucket/prefix` to write a probe to, or `None` to leave storage alone.

    Yields:
        Findings, as soon as each is known.
    """
    from dgasr.model.identity import BUNDLED

    setup = "Run `make setup`."
    # Name, what looks, and what to do where it fails.
    checks: list[tuple[str, Callable[[], Result], str]] = [
        ("python", _python, ""),
        ("packages", _packages, ""),
        ("device", _device, setup),
        *((f"model {own}", partial(_bundled_model, own), f"Restore dgasr/model/{own} from git.") for own in BUNDLED),
        *(("model full", partial(_full_model, repository), setup) for repository in FULL_CHECKPOINTS),
        ("speech model", _speech_model, setup),
        ("codecs", _codecs, setup),
        ("disk", _disk, ""),
        ("s3", _s3_settings, "Correct ~/.aws/config or the AWS_* variables."),
        *([("s3 probe", partial(_s3_probe, s3_uri), "Correct the URI, endpoint or rights.")] if s3_uri else []),
        ("prefect", _prefect, setup),
    ]
    for name, check, remedy_of_failure in checks:
        try:
            message, remedy = check()
            yield Finding(name=name, level="warn" if remedy else "ok", message=message, remedy=remedy)
        except (DgasrError, ImportError, OSError, ValueError) as error:
            yield Finding(name=name, level="fail", message=str(error), remedy=remedy_of_failure)


def _python() -> Result:
    return f"{platform.python_version()}, {os.cpu_count()} cores, {platform.platform()}", ""


def _packages() -> Result:
    if not LOCK.exists():
        remedy = "Install from a checkout with `make setup` to get the pinned versions."
        return f"{LOCK} is not there, so versions cannot be compared", remedy
    pins = dict(line.split("==") for line in LOCK.read_text().split() if "==" in line)
    wrong = [difference for name, pin in pins.items() if (difference := _difference(name, pin))]
    if wrong:
        listed = "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        return listed, "`make setup` installs the pinned versions."
    return f"all {len(pins)} as pinned in {LOCK.name}", ""


def _difference(name: str, pin: str) -> str:
    """Say how an installed package differs from its pin; empty when it does not."""
    try:
        installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"{name} {pin} is missing"
    return "" if installed.split("+")[0] == pin else f"{name} is {installed}, pinned is {pin}"


def _device() -> Result:
    import torch

    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        listed = ", ".join(f"{device.name} {device.total_memory / 2**30:.0f} GiB" for device in devices)
        return f"torch {torch.__version__}, {listed}", ""
    message = f"torch {torch.__version__}, {torch.get_num_threads()} CPU threads, no CUDA device"
    if shutil.which("nvidia-smi"):
        return message, "This machine has an NVIDIA driver: `make setup TORCH=cuda` installs the build that uses it."
    return f"{message} (enough for the bundled models)", ""


def _bundled_model(name: str) -> Result:
    from dgasr.model.checkpoint import load_model
    from dgasr.model.identity import model_folder

    model = load_model(model_folder(name))
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    return f"bundled, {num_parameters:,} parameters, digest {model.identity.digest}", ""


def _full_model(repository: str) -> Result:
    """Look for a checkpoint of the full preset in the Hugging Face cache; nothing is downloaded."""
    from huggingface_hub import constants, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(repository, "config.json"), str):
        return f"{repository} is in {constants.HF_HUB_CACHE}", ""
    message = f"{repository} is not in {constants.HF_HUB_CACHE}; needed for --model full only"
    return message, f"`hf download {repository}`"


def _speech_model() -> Result:
    """Let the network that tells pauses hear a window of silence."""
    import numpy as np

    from dgasr.segmentation.pauses import REMEDY, WINDOW_SAMPLES, weights_path, with_probabilities

    try:
        for _ in with_probabilities([np.zeros(WINDOW_SAMPLES, dtype=np.float32)]):
            pass
    except DgasrError as error:  # a warning: loudness tells pauses without it
        return str(error).removesuffix(REMEDY), REMEDY
    return f"{weights_path().name} on one thread of onnxruntime", ""


def _codecs() -> Result:
    import av
    import soundfile

    libavcodec = ".".join(map(str, av.library_versions["libavcodec"]))
    return (
        f"libsndfile {soundfile.__libsndfile_version__}, libavcodec {libavcodec}; both come with the packages", ""
    )  # fmt: skip


def _disk() -> Result:
    free_bytes = shutil.disk_usage(Path.cwd()).free
    remedy = "Free some space, or keep the lake in S3: an hour of audio needs up to 60 MB while it is worked on."
    return f"{free_bytes / 10**9:.0f} GB free at {Path.cwd()}", remedy if free_bytes < MIN_FREE_BYTES else ""


def _s3_settings() -> Result:
    import boto3
    from botocore.exceptions import BotoCoreError

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
    try:
        credentials = boto3.Session().get_credentials()
    except BotoCoreError as error:
        raise ConfigError(str(error)) from error
    if credentials is None:
        remedy = "For s3:// URIs set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws."
        return "no credentials found; folders work without", remedy
    return f"credentials from {credentials.method}, endpoint {endpoint}", ""


def _s3_probe(s3_uri: str) -> Result:
    """Try what a lake at this URI would rely on."""
    from dgasr.store import probe_store

    probe_store(s3_uri.rstrip("/"))
    return f"{s3_uri}: written, read, listed, deleted; If-None-Match is honoured", ""


def _prefect() -> Result:
    version = importlib.metadata.version("prefect")
    url = os.environ.get("PREFECT_API_URL")
    server = f"server {url}" if url else "no PREFECT_API_URL: flows start a temporary server of their own"
    quiet = os.environ.get("DO_NOT_TRACK") or os.environ.get("PREFECT_SERVER_ANALYTICS_ENABLED") == "false"
    return f"{version}, {server}; telemetry {'off' if quiet else 'is switched off by our flows'}", ""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("doctor", help="look at versions, devices, model files, S3 and disk")
    parser.add_argument("--s3", metavar="s3://BUCKET/PREFIX", help="also write, read and delete a probe object there")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print one line for each finding; exit code 1 where something cannot work."""
    if options.s3 is not None and not options.s3.startswith("s3://"):
        raise ConfigError(f"--s3 {options.s3}: is nothing in S3. Write s3://bucket/prefix.")
    has_failed = False
    for finding in examine(options.s3):
        sys.stdout.write(f"{finding.level:<5} {finding.name:<12} {finding.message}\n")
        if finding.remedy:
            sys.stdout.write(f"      {'':<12} -> {finding.remedy}\n")
        sys.stdout.flush()
        has_failed = has_failed or finding.level == "fail"
    return int(has_failed)
