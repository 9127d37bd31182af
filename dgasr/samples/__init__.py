"""Recordings in many formats, two broken files among them, and what is said in each: spoken digits, and people."""

from pathlib import Path

SAMPLES = Path(__file__).parent
"""Folder of the sample recordings."""

MANIFEST = SAMPLES / "manifest.jsonl"
"""What is said in each sample; the field `expected` names the status the lake should give it."""

SPEECH = SAMPLES / "speech" / "manifest.jsonl"
"""Four read sentences, real speech in the public domain (LJSpeech), with text: for calibrating adapters."""

PEOPLE = SAMPLES / "people" / "manifest.jsonl"
"""People's voices in the public domain (LJSpeech, Common Voice), music, noise and silence: the demo's audio archive."""
