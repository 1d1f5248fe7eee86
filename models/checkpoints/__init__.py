"""Files with weights: our format, published YOLOv5 checkpoints, state dicts loaded into other networks."""
