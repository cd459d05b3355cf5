"""Fails when imported."""

VALUE = 1 / 0
