"""Waveform in, segments cut at silence out: disjoint, in order, and covering every sample."""

from dgasr.segmentation.config import SegmentationConfig
from dgasr.segmentation.cut import Span, cut_at_silence

__all__ = ["SegmentationConfig", "Span", "cut_at_silence"]
