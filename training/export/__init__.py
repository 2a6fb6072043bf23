"""Trained networks as ONNX files with a card."""
