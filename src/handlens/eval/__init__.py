"""Evaluation: scorers are pure functions; runners see only the Answerer protocol."""
