"""Weights from and to other frameworks, and networks as ONNX or StableHLO."""
