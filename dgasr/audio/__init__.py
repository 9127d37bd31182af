"""Bytes in, mono float32 waveform at 16 kHz out, in blocks; and what the container claims against what was decoded."""

from dgasr.audio.source import AudioConfig, Channels, Limits, Track
from dgasr.audio.stream import AudioStream, Channel, open_audio

__all__ = ["AudioConfig", "AudioStream", "Channel", "Channels", "Limits", "Track", "open_audio"]
