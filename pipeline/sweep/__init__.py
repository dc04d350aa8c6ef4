"""Sweeps: each job of `python train.py …` is one DVC experiment in a temporary copy."""
