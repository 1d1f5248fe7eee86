"""What `utils.data.index` is built from: files found, headers and label rows read, results kept."""
