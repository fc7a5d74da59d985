"""Alignment from AI feedback: sample answers, divide them into claims, judge the claims, pair, learn."""
