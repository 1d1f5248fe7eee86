"""Run `train.py` or `val.py` the straightforward way: the same command with parts of `benchmarks/baseline.py`.

    python benchmarks/plainly.py train.py --cfg yolov5_MobileNetv2.yaml --img 320 --epochs 1
    python benchmarks/plainly.py val.py --weights yolov5n.pt --data coco128.yaml

What is exchanged: mosaics resampled twice, of images from the whole data set; the loss level by level with dense
targets; the average of the weights and the optimiser tensor by tensor; all threads on each layer of a whole batch, and
the memory format that torch starts with; torchvision's NMS over all candidates; matching threshold by threshold. The
rest (start-up, index, workers and their shared memory, pictures, reports) stays ours, so that a ratio to it is rather
too low than too high.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import ROOT

COMMANDS = ("train.py", "val.py")


def exchange() -> None:
    """Put the straightforward parts in the place of ours, in this process."""
    import torch

    import engine.training.setup
    import engine.validator
    import utils.data.loader
    import utils.losses.detection
    import utils.metrics.matching
    import utils.ops.nms
    from benchmarks.baseline import PlainDataset, plain_average, plain_loss, plain_match, plain_suppression
    from utils.training.ema import ModelEMA
    from utils.training.optimizer import smart_optimizer

    class PlainLoss(utils.losses.detection.DetectionLoss):
        def __call__(self, predictions: Any, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            loss = plain_loss(predictions, targets, self.head, self.hyp)
            return loss, loss.detach().expand(3) / (3 * len(predictions[0]))  # nobody reads the parts here

    class PlainStreams(engine.validator.Streams):
        def __call__(self, images: torch.Tensor, **arguments: Any) -> Any:
            return self._one(images, arguments)

    def average(self: ModelEMA, model: torch.nn.Module) -> None:
        self.updates += 1
        plain_average(self.ema, model, self.decay_at(self.updates))

    def optimizer(*words: Any, **options: Any) -> torch.optim.Optimizer:
        made = smart_optimizer(*words, **options)
        for group in made.param_groups:
            group.update(foreach=False, fused=False)
        return made

    def suppression(output: Any, **options: Any) -> list[torch.Tensor]:
        decoded = output if isinstance(output, torch.Tensor) else output[0]
        wanted = ("conf_thres", "iou_thres", "multi_label", "max_det")
        return plain_suppression(decoded, **{name: options[name] for name in wanted if name in options})

    torch.channels_last = torch.contiguous_format
    for module, name, part in (
        (utils.data.loader, "DetectionDataset", PlainDataset),
        (utils.losses.detection, "DetectionLoss", PlainLoss),
        (utils.metrics.matching, "match_detections", plain_match),
        (utils.ops.nms, "non_max_suppression", suppression),
        (engine.training.setup, "smart_optimizer", optimizer),
        (engine.validator, "Streams", PlainStreams),
        (ModelEMA, "update", average),
    ):
        assert hasattr(module, name), f"{module.__name__} has no {name} to exchange"
        setattr(module, name, part)


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        raise SystemExit(f"error: name the command to run, {' or '.join(COMMANDS)}, and then its flags")
    exchange()
    command = str(ROOT / sys.argv[1])
    sys.argv[:2] = [command]
    runpy.run_path(command, run_name="__main__")


if __name__ == "__main__":
    main()
