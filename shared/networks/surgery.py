"""What makes a MONAI network fit for per-patient gradients and for federated training.

- Batch statistics mix patients, and their running means are no parameters: every BatchNorm becomes a GroupNorm
  (Wu and He 2018), which looks at one image alone.
- In-place activations overwrite what a per-sample backward pass still needs: they are switched off. (MONAI's in-place
  additions, `x += residual`, work on a tensor made just before and are exact under `vmap`; a test holds every network
  to it.)
- DynUNet registers its blocks under two names each, SegResNet its activation: one name stays, or a gradient counts
  twice.
- A dropout of 0 goes: under `vmap` it would still ask for random numbers.
- Transformer blocks have a normalisation for cross-attention that they never use: it is removed.

Importing this module imports MONAI (seconds).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.networks.blocks.transformerblock import TransformerBlock
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.segresnet import SegResNet
from monai.networks.nets.vit import ViT
from monai.utils.misc import ensure_tuple_rep
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

_MOST_GROUPS = 8


class ViTLogits(ViT):
    """MONAI's ViT, giving the logits alone, and only for sizes of which it sees every pixel."""

    def __init__(self, in_channels: int, img_size: Sequence[int], patch_size: Sequence[int] | int, **options: Any):
        patch = ensure_tuple_rep(patch_size, len(img_size))
        if any(extent % side for extent, side in zip(img_size, patch, strict=True)):
            raise ValueError(f"patch_size {list(patch)} does not divide the size, edges would be cut off")
        super().__init__(in_channels, img_size, patch_size, **options)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, *size)."""
        logits: Tensor = super().forward(x)[0]
        return logits


def fit(network: nn.Module) -> nn.Module:
    """Change the network in place, as the module says, and return it.

    Raises:
        ValueError: if something is left that per-patient gradients do not allow.
    """
    _drop_second_names(network)
    _replace_layers(network)
    for module in network.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
        if isinstance(module, TransformerBlock) and not module.with_cross_attention:
            del module.norm_cross_attn
    _expect_fit(network)
    return network


def groups(channels: int) -> int:
    """How many groups a GroupNorm over so many channels gets: up to 8, of two channels or more.

    >>> [groups(channels) for channels in (1, 6, 16, 20, 64)]
    [1, 3, 8, 5, 8]
    """
    return max(n for n in range(1, _MOST_GROUPS + 1) if channels % n == 0 and (n == 1 or channels >= 2 * n))


def _replace_layers(network: nn.Module) -> None:
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                channels = child.num_features
                norm = nn.GroupNorm(groups(channels), channels, eps=child.eps, affine=child.affine)
                setattr(parent, name, norm)
            elif isinstance(child, _DropoutNd) and child.p == 0:
                setattr(parent, name, nn.Identity())


def _drop_second_names(network: nn.Module) -> None:
    if isinstance(network, DynUNet):
        for name in ("input_block", "downsamples", "upsamples", "bottleneck"):
            delattr(network, name)  # `skip_layers` holds them all, and is what forward uses
    if isinstance(network, SegResNet):
        del network.act_mod  # `conv_final` holds it


def _expect_fit(network: nn.Module) -> None:
    if any(True for _ in network.buffers()):
        raise ValueError("it has buffers, which are no part of a federated model")
    names = [name for name, _ in network.named_parameters(remove_duplicate=False)]
    if len(names) != len(dict(network.named_parameters())):
        raise ValueError("it has a parameter under two names")
