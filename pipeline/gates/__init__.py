"""Detectors of the quality gates, one file each; `pipeline.quality` is their door."""
