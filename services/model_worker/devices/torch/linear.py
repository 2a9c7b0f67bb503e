"""Linear layers in torch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from radixmesh.services.model_worker.checkpoint.weight_slice import frozen_parameter
from radixmesh.services.model_worker.forward.linear import LinearLayer


class TorchLinear:
    """A `LinearMethod`: the weight as it is."""

    def create(self, layer: LinearLayer, dtype: torch.dtype, device: torch.device) -> None:
        layer.weight = frozen_parameter(torch.empty(layer.out_features, layer.in_features, dtype=dtype, device=device))
        layer.bias = None
        if layer.has_bias:
            layer.bias = frozen_parameter(torch.empty(layer.out_features, dtype=dtype, device=device))

    def finish(self, layer: LinearLayer) -> None:
        """Nothing to repack."""

    def apply(self, layer: LinearLayer, x: Tensor) -> Tensor:
        return F.linear(x, layer.weight, layer.bias)
