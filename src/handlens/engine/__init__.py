"""What runs on a device: vision through ONNX Runtime, language through llama.cpp. No torch."""
