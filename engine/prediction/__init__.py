"""Around the prediction loop: the command, its flags, and what becomes of detections."""
