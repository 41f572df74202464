"""Image encoders of `transformers` behind one protocol, with a light head for the classes.

An encoder is its stock `transformers` module. Its `Family` says how an image becomes an embedding pyramid, what sizes
it takes, and how its pixels are normalised; nothing else of the project looks into an encoder.
"""
