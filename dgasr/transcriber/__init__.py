"""Audio to transcripts: composes features, model, diffusion and alignment."""

from dgasr.recipe import build_recipe
from dgasr.transcriber.file import Transcript, transcribe
from dgasr.transcriber.loading import load
from dgasr.transcriber.segments import Transcriber

__all__ = ["Transcriber", "Transcript", "build_recipe", "load", "transcribe"]
