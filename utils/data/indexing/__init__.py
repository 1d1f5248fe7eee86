"""From folders of images and label files to the index of a split; `index.build_index` does it all."""
