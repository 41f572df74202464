"""Inputs as people have them, by what may be wrong with them: each is taken rightly, or refused in words."""
