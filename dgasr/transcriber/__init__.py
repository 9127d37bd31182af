"""Audio to transcripts: the room where all others meet."""

from dgasr.recipe import build_recipe
from dgasr.transcriber.file import Transcript, transcribe
from dgasr.transcriber.loading import load
from dgasr.transcriber.segments import Transcriber

__all__ = ["Transcriber", "Transcript", "build_recipe", "load", "transcribe"]
