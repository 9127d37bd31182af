"""Waveform in, segments cut at silence out: disjoint, in order, and covering every sample."""

from dgasr.segmentation.cut import SegmentationConfig, SegmentationMethod, Span, cut_at_silence

__all__ = ["SegmentationConfig", "SegmentationMethod", "Span", "cut_at_silence"]
