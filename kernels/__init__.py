"""Triton kernels, one file per operation, each checked against its reference in `baseline.ops`."""
