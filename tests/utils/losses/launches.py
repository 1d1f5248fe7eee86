"""How many kernels a GPU would be asked to launch, counted on a CPU."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

# These make a tensor without computing anything, or compute on the host.
_FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "promote_types", "_unsafe_view"}


class Launches(TorchDispatchMode):
    """Within the block `counts` gathers aten's operations below autograd, by name, which a GPU would launch for.

    Counted is every operation that makes values or writes them: not views (their result shares its argument's memory),
    memory that is taken but not filled, and questions about types. A few, such as a sort, are several kernels on a GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        aliases = [result.alias_info for result in func._schema.returns]
        if not any(alias is not None and not alias.is_write for alias in aliases) and name not in _FREE:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))
