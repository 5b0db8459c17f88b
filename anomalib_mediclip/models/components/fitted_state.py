# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""State of a model that is computed from the support set, and whose size is not known before."""

from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import nn


class FittedState(nn.Module):
    """Module whose tensors named in ``CONTENT`` go into the state dict, in whatever size they have.

    They are no buffers: callbacks that average weights copy a model before its content is computed, and cannot average
    buffers that have another size since.

    Example:
        >>> class Mean(FittedState):
        ...     CONTENT = ("mean",)
        ...     def __init__(self) -> None:
        ...         super().__init__()
        ...         self.mean = torch.zeros(0)
        >>> fitted, loaded = Mean(), Mean()
        >>> fitted.mean = torch.ones(2)
        >>> loaded.load_state_dict(fitted.state_dict())
        <All keys matched successfully>
        >>> loaded.mean, loaded.nbytes
        (tensor([1., 1.]), 8)
    """

    CONTENT: ClassVar[tuple[str, ...]]

    @property
    def nbytes(self) -> int:
        """Size of the content in bytes; 0 before it is computed."""
        return sum(getattr(self, name).nbytes for name in self.CONTENT)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """Move the content with the module, as torch moves buffers."""
        for name in self.CONTENT:
            setattr(self, name, fn(getattr(self, name)))
        return super()._apply(fn, recurse)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Add the content to a state dict, as torch adds buffers."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.update({prefix + name: getattr(self, name) for name in self.CONTENT})

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take the content of a state dict, of whatever size it is."""
        missing_keys: list[str] = args[2]
        for name in self.CONTENT:
            if prefix + name in state_dict:
                setattr(self, name, state_dict[prefix + name].detach().to(getattr(self, name)).clone())
            else:
                missing_keys.append(prefix + name)
        super()._load_from_state_dict(state_dict, prefix, *args)
        unexpected_keys: list[str] = args[3]
        unexpected_keys[:] = [key for key in unexpected_keys if key not in {prefix + name for name in self.CONTENT}]
