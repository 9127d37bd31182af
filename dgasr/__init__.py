"""Batch transcription of audio archives with a diffusion decoder."""

from typing import Any

__all__ = ["build_recipe", "load", "transcribe"]


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import; the command line's help must not wait for them.
    if name in __all__:
        from dgasr import transcriber

        return getattr(transcriber, name)
    raise AttributeError(f"module 'dgasr' has no attribute {name!r}")
