"""From an ONNX model to a program: load, simplify, quantise, map, schedule, assemble."""
