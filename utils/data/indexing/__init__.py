"""Makes the index of a split from folders of images and label files; `index.build_index` does all of it."""
