"""Where the images of a detection come from: files, videos, streams or the screen. `source.open_source` chooses."""
