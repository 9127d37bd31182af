"""Bytes in, mono float32 waveform at 16 kHz out, in blocks; and what the container claims against what was decoded."""

from dgasr.audio.source import AudioConfig
from dgasr.audio.stream import AudioStream, open_audio

__all__ = ["AudioConfig", "AudioStream", "open_audio"]
