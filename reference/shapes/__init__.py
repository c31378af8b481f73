"""Data, model and training stages of `models/shapes`; the entry point is `../train_shapes.py`."""
