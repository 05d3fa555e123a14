"""The residual networks of ArcFace (Deng et al., 2019), whose published weights many face embedders come as.

They differ from ResNets: no pooling, a batch norm before the first convolution of a block, and PReLU. The names of the
layers are those of the published files.
"""

from __future__ import annotations

from torch import Tensor, nn

from vlbias.errors import ConfigError

__all__ = ["DEPTHS", "EMBEDDING_SIZE", "IResNet", "iresnet"]

#: Blocks in each of the four stages.
DEPTHS = {
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
}
WIDTHS = (64, 128, 256, 512)
#: Edge of the pictures of the published weights; each of four stages halves it.
OWN_PX = 112
EMBEDDING_SIZE = 512


class _Block(nn.Module):
    def __init__(self, num_inputs: int, num_outputs: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(num_inputs)
        self.conv1 = nn.Conv2d(num_inputs, num_outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(num_outputs)
        self.prelu = nn.PReLU(num_outputs)
        self.conv2 = nn.Conv2d(num_outputs, num_outputs, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(num_outputs)
        self.downsample = None
        if stride != 1 or num_inputs != num_outputs:
            shortcut = nn.Conv2d(num_inputs, num_outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(num_outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(x)) + shortcut


def _stage(num_inputs: int, num_outputs: int, depth: int) -> nn.Sequential:
    rest = (_Block(num_outputs, num_outputs, 1) for _ in range(depth - 1))
    return nn.Sequential(_Block(num_inputs, num_outputs, 2), *rest)


class IResNet(nn.Module):
    """Pictures (b, 3, size, size) in [-1, 1] => embeddings (b, 512), or what ``head`` makes of them.

    Args:
        depths: blocks in each of the four stages.
        image_size: edge in pixels, a multiple of 16; the published weights are for 112.

    Raises:
        ConfigError: ``image_size`` is no multiple of 16.
    """

    def __init__(self, depths: tuple[int, ...], image_size: int = OWN_PX):
        super().__init__()
        if image_size < 16 or image_size % 16:
            raise ConfigError(f"an iresnet takes pictures whose edge is a multiple of 16 pixels; got {image_size}.")
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.prelu = nn.PReLU(WIDTHS[0])
        before = (WIDTHS[0], *WIDTHS)
        stages = [_stage(*sizes) for sizes in zip(before, WIDTHS, depths, strict=False)]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.bn2 = nn.BatchNorm2d(WIDTHS[-1])
        self.fc = nn.Linear(WIDTHS[-1] * (image_size // 16) ** 2, EMBEDDING_SIZE)
        self.features = nn.BatchNorm1d(EMBEDDING_SIZE)
        self.features.weight.requires_grad = False  # as published: a scale would undo the margin's
        self.head: nn.Module = nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.head(self.features(self.fc(self.bn2(x).flatten(1))))


def iresnet(name: str, image_size: int | None = None) -> IResNet:
    """An iresnet by name, with random weights.

    Args:
        name: a key of ``DEPTHS``.
        image_size: edge in pixels; ``None`` for 112.

    Example:
        >>> iresnet("iresnet18", image_size=32).fc.in_features
        2048
    """
    return IResNet(DEPTHS[name], image_size or OWN_PX)
