"""Harnesses: processes that are killed, and files that are mutated."""
