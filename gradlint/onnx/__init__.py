"""ONNX files as data: read safely, lowered to torch-level calls, understood without torch."""

INSTALL = "pip install 'torch-gradlint[onnx]'"
