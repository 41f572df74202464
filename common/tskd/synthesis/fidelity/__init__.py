"""How close synthetic images are to real ones as a set."""
