"""The diffusion decoder: uniform noise to text, many segments at a time.

`denoise.py` loops over a changing batch, `sampler.py` takes a step, `vocabulary.py` reads the distribution chunk by
chunk (on a GPU by `vocabulary_kernel.py`), `noise.py` draws, `canvas.py` holds the settings, and what goes in and comes
out.
"""
