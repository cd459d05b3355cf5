"""Runs in other processes, on this machine or another."""
