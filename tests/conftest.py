"""Fixtures that more than one room needs."""

import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path

import av
import numpy as np
import pytest

from dgasr.alignment.words import AlignmentConfig
from dgasr.audio import AudioConfig
from dgasr.diffusion import DecodeConfig
from dgasr.features import FeatureConfig
from dgasr.model.presets import ModelIdentity
from dgasr.recipe import Recipe
from dgasr.records import SAMPLE_RATE_HZ
from dgasr.segmentation import SegmentationConfig

# Who names no model gets the small one here, subprocesses too; tests of `base` name it.
os.environ["DGASR_MODEL"] = "tiny"

if not Path("/dev/nvidiactl").exists():
    # Without a GPU kernels run in Triton's interpreter; read when Triton is imported, by whoever comes first.
    os.environ.setdefault("TRITON_INTERPRET", "1")


def group_of(item: pytest.Item) -> str:
    """Name what is run in one process: the group that a test is marked with, or its file."""
    mark = item.get_closest_marker("xdist_group")
    return mark.args[0] if mark else item.path.stem


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in this hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let a file's tests share one process, so that what they share is made once; files with slow tests come first."""
    slow = {group_of(item) for item in items if item.get_closest_marker("slow")}
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_of(item)))
    items.sort(key=lambda item: group_of(item) not in slow)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """URL of an S3 server on loopback, for this session; the AWS_* environment points at it."""
    from moto.s3.responses import S3Response
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    put_object, lock = S3Response.put_object, threading.Lock()

    def put_object_in_one_step(response: S3Response) -> object:
        with lock:
            return put_object(response)

    with pytest.MonkeyPatch.context() as environment:
        # moto looks for If-None-Match whether there is an object, and then writes: two writers may both succeed, whose
        # commits then replace each other. S3 decides in one step.
        environment.setattr(S3Response, "put_object", put_object_in_one_step)
        environment.setenv("AWS_ENDPOINT_URL", endpoint)
        environment.setenv("AWS_ACCESS_KEY_ID", "test")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        environment.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        environment.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
        environment.setenv("AWS_CONFIG_FILE", "/dev/null")
        environment.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        environment.delenv("AWS_PROFILE", raising=False)
        yield endpoint
    server.stop()


@pytest.fixture(scope="session")
def prefect_database(pytestconfig: pytest.Config) -> Path:
    """Database of a Prefect server, for servers to begin with a copy of: making it is most of what their start takes.

    It lies in pytest's cache, by Prefect's version, so that test processes and later runs share it.
    """
    folder = pytestconfig.cache.mkdir(f"prefect-{version('prefect')}")
    database, made = folder / "prefect.db", folder / "made"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not database.exists():
            home = {"PREFECT_HOME": str(made), "PREFECT_PROFILES_PATH": f"{made}/profiles.toml", "DO_NOT_TRACK": "1"}
            command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
            subprocess.run(command, env=os.environ | home, check=True, capture_output=True)
            (folder / "partial").unlink(missing_ok=True)
            with closing(sqlite3.connect(made / "prefect.db")) as connection:  # what lies beside the file comes too
                connection.execute("vacuum into ?", (str(folder / "partial"),))
            (folder / "partial").replace(database)
            shutil.rmtree(made)
    return database


CEPH = Path(__file__).parents[2] / "shared" / "tools" / "ceph_rgw.sh"
"""Starts a Ceph gateway: FOLDER and PORT in, an S3 server that is no imitation out."""


@pytest.fixture(scope="session")
def ceph_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment that leads to Ceph on loopback; a test that asks for it is skipped where Ceph is not installed."""
    from tests.proofs.processes import free_ports

    if not CEPH.is_file() or any(shutil.which(name) is None for name in ("radosgw", "ceph-mon", "ceph-osd")):
        pytest.skip(f"Ceph is not installed (apt-get install radosgw ceph-mon ceph-osd), or there is no {CEPH}")
    folder = tmp_path_factory.mktemp("ceph")
    (port,) = free_ports(1)
    ended = subprocess.run(["bash", CEPH, folder, str(port)], capture_output=True, text=True, timeout=300, check=False)
    try:
        if ended.returncode:
            pytest.skip(f"Ceph does not start here: {ended.stdout[-300:]} {ended.stderr[-300:]}")
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "DGASRKEY",
            "AWS_SECRET_ACCESS_KEY": "dgasrsecret",
        }
    finally:
        for name in ("rgw", "osd", "mon"):
            with suppress(OSError, ValueError):
                os.kill(int((folder / "run" / f"{name}.pid").read_text()), signal.SIGTERM)


@pytest.fixture(params=["folder", "s3", "ceph"])
def make_place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], str]]:
    """Function that gives the URI of an empty place of this name, in every kind of store that promises are made of."""
    if request.param == "folder":
        yield lambda name: str(tmp_path / name)
        return
    import boto3

    from dgasr.store import s3

    request.getfixturevalue("s3_endpoint")
    if request.param == "ceph":
        for name, value in request.getfixturevalue("ceph_endpoint").items():
            monkeypatch.setenv(name, value)
    s3._client_of.cache_clear()
    bucket = f"places-{uuid.uuid4().hex[:12]}"
    boto3.Session().client("s3").create_bucket(Bucket=bucket)  # the default session keeps the first credentials
    yield lambda name: f"s3://{bucket}/{name}"
    s3._client_of.cache_clear()


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """Recipe of a window of 8 s, for stages whose transcriber needs no model."""
    return Recipe(
        model=ModelIdentity(name="fake", digest="0" * 32),
        language="en",
        rescore="joint",
        audio=AudioConfig(),
        segmentation=SegmentationConfig(method="loudness"),
        features=FeatureConfig(window_samples=8 * SAMPLE_RATE_HZ),
        decode=DecodeConfig(),
        alignment=AlignmentConfig(),
    )


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> object:
    """The bundled small model's vocabulary."""
    from dgasr.prompt import Tokenizer
    from tools.tiny.fresh import write_word_tokenizer

    folder = tmp_path_factory.mktemp("vocabulary")
    write_word_tokenizer(folder)
    return Tokenizer.load(folder)


@pytest.fixture(scope="session")
def random_model():
    """Model of the bundled size with the first weights of a training, frozen; it has no tokenizer."""
    import torch

    from dgasr.model.asr import AsrModel
    from dgasr.model.presets import tiny
    from tools.tiny.fresh import initialise

    torch.manual_seed(0)
    model = AsrModel(tiny())
    initialise(model, torch.randn(2, 80, 800), seed=0)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")  # no longer: while Playwright runs, `asyncio.run` is refused in this thread
def browser() -> Iterator[object]:
    """Chromium without a window, as Debian packages it; a test that asks for it is skipped where there is none."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no Chromium (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        own = playwright.chromium.launch(executable_path=path, args=flags)
        yield own
        own.close()


SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real speech; a test that asks for it is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"{SHARED_DATA} is not on this machine")
    return SHARED_DATA


def _encode(
    path: Path,
    waveform: np.ndarray,
    sample_rate_hz: int,
    codec: str,
    codec_options: dict[str, str] | None = None,
    **options: str,
) -> None:
    """Write a waveform, [channels, samples] in [-1, 1], with libav; the container follows from the path."""
    layout = {1: "mono", 2: "stereo"}[waveform.shape[0]]
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=sample_rate_hz, layout=layout, options=codec_options)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveform, np.float32), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = sample_rate_hz, 0
        fifo = av.AudioFifo()
        fifo.write(frame)
        resampler = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=sample_rate_hz)
        size = stream.codec_context.frame_size or 1024
        while (part := fifo.read(size, partial=True)) is not None:
            for converted in resampler.resample(part):
                container.mux(stream.encode(converted))
        container.mux(stream.encode(None))


@pytest.fixture(scope="session")
def encode() -> Callable[..., None]:
    """Function `(path, waveform, sample_rate_hz, codec, codec_options, **options)` that writes a file with libav."""
    return _encode
