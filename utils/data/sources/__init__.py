"""Where pictures come from: files, videos, streams, the screen. One file each; `source.open_source` chooses."""
