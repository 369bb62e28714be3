"""What serves the ONNX model: needs requirements-serving.txt, never PyTorch."""
