"""Networks: pure functions that build Keras functional models."""
