"""Predict, measure, compare and choose: what a model needs on a device. No torch."""
