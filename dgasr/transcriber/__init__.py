"""Audio to transcripts: the room where all others meet."""

from dgasr.transcriber.file import Transcript, transcribe
from dgasr.transcriber.loading import build_recipe, load
from dgasr.transcriber.segments import Transcriber

__all__ = ["Transcriber", "Transcript", "build_recipe", "load", "transcribe"]
