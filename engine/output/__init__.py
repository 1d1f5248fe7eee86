"""What becomes of detections: pictures, videos, label files, a table, crops, a window."""
