"""Fidelity of a set of synthetic images: KID, FID, precision and recall."""
