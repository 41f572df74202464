"""A teacher's answers on disk: predict, write, verify, read; ensembles and out-of-fold teachers."""
