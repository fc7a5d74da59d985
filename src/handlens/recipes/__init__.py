"""Runs that can be repeated by name: functions that return one frozen recipe."""
