"""Preparation of a user's own images and volumes: checks, split by patient, files, dataset.json."""
