"""Instance segmentation: `train.py`, `val.py` and `predict.py` of this folder are the detection commands with masks."""
