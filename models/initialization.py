"""How the parameters and settings of a newly built network begin."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

_IN_PLACE = (nn.Hardswish, nn.LeakyReLU, nn.ReLU, nn.ReLU6, nn.SiLU)


def initialize_weights(model: nn.Module) -> None:
    """Give batch norms eps 1e-3 and momentum 0.03 and let activations work in place, as YOLOv5 does.

    The weights stay as PyTorch drew them.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = 1e-3, 0.03
        elif isinstance(module, _IN_PLACE):
            module.inplace = True


class SkipInitialization(TorchFunctionMode):
    """Within this context, new parameters keep whatever their memory holds, for a checkpoint to replace them all.

    Drawing them takes most of the time of building a large model.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
