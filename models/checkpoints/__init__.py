"""Files with weights: our format, published YOLOv5 checkpoints, transfer of weights between networks."""
