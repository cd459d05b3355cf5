"""Inputs from files and from Python, validated once and then streamed."""
