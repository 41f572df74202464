"""Preparation of public data sets from their owners' layouts."""
