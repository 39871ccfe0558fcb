"""Predicted moments of activations and gradients, from a graph and its parameters' statistics alone (numpy only)."""

from gradlint.signal.predict import predict

__all__ = ["predict"]
