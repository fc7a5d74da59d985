"""Torch weights in, bundle out: ONNX for vision, GGUF for language, one manifest."""
