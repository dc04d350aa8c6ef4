"""Data drift: compare recent predictions with the model's validation images.

Run it with `python -m monitoring.drift`.
"""
