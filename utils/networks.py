"""What is done to any network: initialise it, unwrap it, compare its state with another's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

_IN_PLACE = (nn.Hardswish, nn.LeakyReLU, nn.ReLU, nn.ReLU6, nn.SiLU)


def initialize_weights(model: nn.Module) -> None:
    """Norms get eps 1e-3 and momentum 0.03, activations work in place (YOLOv5); weights stay as PyTorch drew them."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = 1e-3, 0.03
        elif isinstance(module, _IN_PLACE):
            module.inplace = True


def de_parallel(model: nn.Module) -> nn.Module:
    """The network inside a (distributed) data-parallel wrapper, or `model` itself."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return model.module if isinstance(model, wrappers) else model


def intersect_dicts(
    source: Mapping[str, Tensor], target: Mapping[str, Tensor], exclude: Iterable[str] = ()
) -> dict[str, Tensor]:
    """The entries of `source` that `target` has with the same shape, without those whose name contains an `exclude`."""
    exclude = tuple(exclude)
    return {
        name: value
        for name, value in source.items()
        if name in target and value.shape == target[name].shape and not any(part in name for part in exclude)
    }
