"""Façades: names that scripts written for YOLOv5's instance segmentation import from ``utils.segment``."""
