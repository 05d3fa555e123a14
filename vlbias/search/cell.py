"""The published architecture space: a dual-path block whose three convolutions are searched, 9 operations each.

The skeleton (stem, projections, two-path bookkeeping, pooling) is timm's DPN; only the three edges of each block are
replaced, by the same triple in every block. Source: Dooley, Sukthanker et al., NeurIPS 2023, section 4.1 and its
released search code.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vlbias.errors import ConfigError
from vlbias.settings import Settings, number

__all__ = ["NUM_OPERATIONS", "PUBLISHED_DPN", "Skeleton", "dpn_cell", "operation"]

NUM_OPERATIONS = 9
#: The triple whose block is the ordinary DPN block.
PUBLISHED_DPN = (1, 0, 1)


@dataclass(frozen=True)
class Skeleton(Settings):
    """Widths of the dual-path network; the defaults are the published search's (DPN-107 with one block a section).

    Args:
        num_init_features: channels of the stem.
        k_r: channels of the first section's bottleneck, a multiple of ``groups``; doubled each section.
        groups: groups of the second convolution.
        inc_sec: channels that the dense path gains per block, per section.
        small: a 3x3 stem and narrow residual path (timm's DPN-68) instead of a 7x7 stem and four times its width.
    """

    num_init_features: int = number(128, 1, 8192)
    k_r: int = number(200, 1, 8192)
    groups: int = number(50, 1, 8192)
    inc_sec: tuple[int, int, int, int] = number((20, 64, 64, 128), 1, 8192)
    small: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k_r % self.groups:
            raise ConfigError(f"`k_r` must be a multiple of `groups`; got {self.k_r} and {self.groups}.")

    @classmethod
    def laptop(cls) -> Skeleton:
        """The same cell at about a hundredth of the multiplications, for 32 to 64 px images on a CPU."""
        return cls(num_init_features=16, k_r=32, groups=8, inc_sec=(8, 8, 16, 16), small=True)


def operation(index: int, in_chs: int, out_chs: int, *, stride: int = 1, groups: int = 1) -> nn.Module:
    """Operation 0..8 of an edge: BN-act then conv (0-2), conv (3-5), conv then BN-act (6-8); kernel 3, 1, 5 in turn."""
    from timm.layers.create_conv2d import create_conv2d
    from timm.layers.norm_act import BatchNormAct2d

    if not 0 <= index < NUM_OPERATIONS:
        raise ConfigError(f"An operation is a number 0..{NUM_OPERATIONS - 1}; got {index}.")
    order, kernel_size = index // 3, (3, 1, 5)[index % 3]
    conv: nn.Module = create_conv2d(in_chs, out_chs, kernel_size, stride=stride, groups=groups)
    if order == 0:
        return nn.Sequential(BatchNormAct2d(in_chs, eps=0.001), conv)
    if order == 1:
        return conv
    return nn.Sequential(conv, BatchNormAct2d(out_chs, eps=0.001))


def dpn_cell(cell: tuple[int, int, int], skeleton: Skeleton | None = None) -> nn.Module:
    """A dual-path network with the triple ``cell`` in every block: image (b, 3, h, w) => features (b, num_features).

    The second edge is grouped and carries the stride, whatever its operation.

    Raises:
        ConfigError: the triple is not three numbers 0..8.
    """
    from timm.models.dpn import DPN, DualPathBlock

    if len(cell) != 3:
        raise ConfigError(f"A cell is three operations; got {cell}.")
    s = skeleton or Skeleton()
    network = DPN(
        k_sec=(1, 1, 1, 1),
        inc_sec=s.inc_sec,
        k_r=s.k_r,
        groups=s.groups,
        num_classes=0,
        small=s.small,
        num_init_features=s.num_init_features,
    )
    for block in network.features:
        if isinstance(block, DualPathBlock):
            for edge, name in enumerate(("c1x1_a", "c3x3_b", "c1x1_c")):
                conv = getattr(block, name).conv
                chosen = operation(
                    cell[edge], conv.in_channels, conv.out_channels, stride=conv.stride[0], groups=conv.groups
                )
                setattr(block, name, chosen)
    return network
