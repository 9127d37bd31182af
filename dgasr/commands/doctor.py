"""`dgasr doctor`: what is right and wrong with this machine, and what to do about it. Changes nothing.

The one exception: asked about an S3 prefix, it writes a probe object there and deletes it.
"""

import argparse
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dgasr.errors import ConfigError, DgasrError

LOCK = Path(__file__).parents[2] / "requirements.lock"
"""The pinned versions; beside the package where it was installed from a checkout."""

MIN_FREE_BYTES = 5 * 10**9
"""Free disk space below which staged features of a long run may not fit: a few hundred hours of audio."""


FULL_CHECKPOINTS = ("openai/whisper-small", "google/diffusiongemma-26B-A4B-it")
"""What the full preset loads from the Hugging Face hub."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What was found about one thing."""

    name: str
    level: Literal["ok", "warn", "fail"]
    message: str
    """What was found."""
    remedy: str = ""
    """What to do about it; empty where nothing needs doing."""


def examine(s3_uri: str | None = None) -> Iterator[Finding]:
    """Look at everything, in the order in which a person would.

    Args:
        s3_uri: `s3://bucket/prefix` to write a probe to, or `None` to leave storage alone.

    Yields:
        Findings, as soon as each is known.
    """
    from dgasr.model.identity import BUNDLED

    yield from (_python(), _packages(), _device())
    yield from (*map(_bundled_model, BUNDLED), *_full_model(), _speech_model(), _codecs())
    yield from (_disk(), _s3_settings())
    if s3_uri is not None:
        yield _s3_probe(s3_uri)
    yield _prefect()


def _python() -> Finding:
    message = f"{platform.python_version()}, {os.cpu_count()} cores, {platform.platform()}"
    return Finding(name="python", level="ok", message=message)


def _packages() -> Finding:
    if not LOCK.exists():
        return Finding(
            name="packages",
            level="warn",
            message=f"{LOCK} is not there, so versions cannot be compared",
            remedy="Install from a checkout with `make setup` to get the pinned versions.",
        )
    pins = dict(line.split("==") for line in LOCK.read_text().split() if "==" in line)
    wrong = [difference for name, pin in pins.items() if (difference := _difference(name, pin))]
    if wrong:
        listed = "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        return Finding(
            name="packages", level="warn", message=listed, remedy="`make setup` installs the pinned versions."
        )
    return Finding(name="packages", level="ok", message=f"all {len(pins)} as pinned in {LOCK.name}")


def _difference(name: str, pin: str) -> str:
    """Say how an installed package differs from its pin; empty when it does not."""
    try:
        installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"{name} {pin} is missing"
    return "" if installed.split("+")[0] == pin else f"{name} is {installed}, pinned is {pin}"


def _device() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding(name="device", level="fail", message=f"torch: {error}", remedy="Run `make setup`.")
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        listed = ", ".join(f"{device.name} {device.total_memory / 2**30:.0f} GiB" for device in devices)
        return Finding(name="device", level="ok", message=f"torch {torch.__version__}, {listed}")
    message = f"torch {torch.__version__}, {torch.get_num_threads()} CPU threads, no CUDA device"
    if shutil.which("nvidia-smi"):
        remedy = "This machine has an NVIDIA driver: `make setup TORCH=cuda` installs the build that uses it."
        return Finding(name="device", level="warn", message=message, remedy=remedy)
    return Finding(name="device", level="ok", message=f"{message} (enough for the bundled models)")


def _bundled_model(name: str) -> Finding:
    from dgasr.model.checkpoint import load_model
    from dgasr.model.identity import model_folder

    try:
        model = load_model(model_folder(name))
    except DgasrError as error:
        remedy = f"Restore dgasr/model/{name} from git."
        return Finding(name=f"model {name}", level="fail", message=str(error), remedy=remedy)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    message = f"bundled, {num_parameters:,} parameters, digest {model.identity.digest}"
    return Finding(name=f"model {name}", level="ok", message=message)


def _full_model() -> Iterator[Finding]:
    """Look for the two checkpoints of the full preset in the Hugging Face cache; nothing is downloaded."""
    from huggingface_hub import constants, try_to_load_from_cache

    for repository in FULL_CHECKPOINTS:
        if isinstance(try_to_load_from_cache(repository, "config.json"), str):
            yield Finding(name="model full", level="ok", message=f"{repository} is in {constants.HF_HUB_CACHE}")
        else:
            message = f"{repository} is not in {constants.HF_HUB_CACHE}; needed for --model full only"
            yield Finding(name="model full", level="warn", message=message, remedy=f"`hf download {repository}`")


def _speech_model() -> Finding:
    """Let the network that tells pauses hear a window of silence."""
    import numpy as np

    from dgasr.segmentation.speech import REMEDY, WINDOW_SAMPLES, weights_path, with_probabilities

    try:
        for _ in with_probabilities([np.zeros(WINDOW_SAMPLES, dtype=np.float32)]):
            pass
    except DgasrError as error:
        return Finding(name="speech model", level="warn", message=str(error).removesuffix(REMEDY), remedy=REMEDY)
    return Finding(name="speech model", level="ok", message=f"{weights_path().name} on one thread of onnxruntime")


def _codecs() -> Finding:
    try:
        import av
        import soundfile
    except (ImportError, OSError) as error:
        return Finding(name="codecs", level="fail", message=str(error), remedy="Run `make setup`.")
    libavcodec = ".".join(map(str, av.library_versions["libavcodec"]))
    message = f"libsndfile {soundfile.__libsndfile_version__}, libavcodec {libavcodec}; both come with the packages"
    return Finding(name="codecs", level="ok", message=message)


def _disk() -> Finding:
    free_bytes = shutil.disk_usage(Path.cwd()).free
    message = f"{free_bytes / 10**9:.0f} GB free at {Path.cwd()}"
    if free_bytes < MIN_FREE_BYTES:
        remedy = "Free some space, or keep the lake in S3: an hour of audio needs up to 60 MB while it is worked on."
        return Finding(name="disk", level="warn", message=message, remedy=remedy)
    return Finding(name="disk", level="ok", message=message)


def _s3_settings() -> Finding:
    import boto3
    from botocore.exceptions import BotoCoreError

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
    try:
        credentials = boto3.Session().get_credentials()
    except BotoCoreError as error:
        return Finding(
            name="s3", level="fail", message=str(error), remedy="Correct ~/.aws/config or the AWS_* variables."
        )
    if credentials is None:
        remedy = "For s3:// URIs set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws."
        return Finding(name="s3", level="warn", message="no credentials found; folders work without", remedy=remedy)
    message = f"credentials from {credentials.method}, endpoint {endpoint}"
    return Finding(name="s3", level="ok", message=message)


def _s3_probe(s3_uri: str) -> Finding:
    """Try what a lake at this URI would rely on."""
    from dgasr.store.objects import probe_store

    try:
        probe_store(s3_uri.rstrip("/"))
    except DgasrError as error:
        return Finding(name="s3 probe", level="fail", message=str(error), remedy="Correct the URI, endpoint or rights.")
    message = f"{s3_uri}: written, read, listed, deleted; If-None-Match is honoured"
    return Finding(name="s3 probe", level="ok", message=message)


def _prefect() -> Finding:
    try:
        version = importlib.metadata.version("prefect")
    except importlib.metadata.PackageNotFoundError:
        return Finding(name="prefect", level="fail", message="not installed", remedy="Run `make setup`.")
    url = os.environ.get("PREFECT_API_URL")
    server = f"server {url}" if url else "no PREFECT_API_URL: flows start a temporary server of their own"
    quiet = os.environ.get("DO_NOT_TRACK") or os.environ.get("PREFECT_SERVER_ANALYTICS_ENABLED") == "false"
    telemetry = "telemetry off" if quiet else "telemetry is switched off by our flows"
    return Finding(name="prefect", level="ok", message=f"{version}, {server}; {telemetry}")


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
