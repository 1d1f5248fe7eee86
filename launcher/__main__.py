"""The command `yolov5-mobilenet`: `yolov5-mobilenet train …` does what `python train.py …` does in a checkout."""

from __future__ import annotations

import os
import runpy
import sys

from yolov5_mobilenetv2 import HERE, use

COMMANDS = {
    "train": "train a detector",
    "val": "measure its precision",
    "detect": "run it on images, video, cameras",
    "export": "write it for other runtimes",
    "hub": "load a network and run it on the sample photographs",
    "segment train": "train an instance segmenter",
    "segment val": "measure its precision",
    "segment predict": "run it",
}
SCRIPTS = {"hub": "hubconf.py"}  # the others are called as their command


def main() -> None:
    """Run the command that the first word, or the first two, of the command line name."""
    words = sys.argv[1:]
    name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in COMMANDS), None)
    if name is None:
        asked_for_help = words[:1] in ([], ["-h"], ["--help"])
        lines = [f"  yolov5-mobilenet {command:<16} {text}" for command, text in COMMANDS.items()]
        usage = "\n".join(["Commands (each answers --help):", *lines])
        if asked_for_help:
            print(usage)
            sys.exit(0)
        sys.exit(f"error: '{words[0]}' is no command; the commands are {', '.join(COMMANDS)}")
    os.environ.setdefault("YOLOv5_DATASETS_DIR", "datasets")  # below the working directory
    use()
    script = SCRIPTS.get(name, name.replace(" ", "/") + ".py")
    sys.argv = [script, *words[len(name.split()) :]]
    runpy.run_path(str(HERE / script), run_name="__main__")


if __name__ == "__main__":
    main()
