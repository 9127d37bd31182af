"""The diffusion decoder: uniform noise to text, many segments at a time.

`denoise.py` loops over a changing batch, `rows.py` takes a step, `sampler.py` decides, `vocabulary_tail.py` reads the
distribution, chunk by chunk (`vocabulary_chunk.py`, or on a GPU `vocabulary_kernel.py`), `noise.py` draws, `canvas.py`
holds what goes in and comes out, `config.py` the settings.
"""
