"""Side by side: this grid's judges, another simulator, onnxruntime, published figures."""
