"""The two network shapes behind the shipped models, small enough to answer in milliseconds on one CPU core."""

import torch
from torch import nn


def conv_bn(inside: int, outside: int, size: int = 3, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inside, outside, size, stride, size // 2, bias=False), nn.BatchNorm2d(outside)]


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al. 2016)."""

    def __init__(self, inside: int, outside: int, stride: int = 1):
        super().__init__()
        self.body = nn.Sequential(
            *conv_bn(inside, outside, stride=stride), nn.ReLU(), *conv_bn(outside, outside)
        )
        same = inside == outside and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*conv_bn(inside, outside, 1, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class TypeNet(nn.Module):
    """Classifier: [N, 1, H, W] to raw logits [N, labels]. Stem at half size, then four halvings."""

    def __init__(self, labels: int, widths: tuple[int, ...] = (16, 32, 64, 96)):
        super().__init__()
        layers = [*conv_bn(1, widths[0], 5, 2), nn.ReLU(), Block(widths[0], widths[0])]
        for inside, outside in zip(widths, widths[1:]):
            layers += [Block(inside, outside, stride=2), Block(outside, outside)]
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(widths[-1], labels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.features(x).mean((2, 3))))


class MapNet(nn.Module):
    """U-Net (Ronneberger et al. 2015): [N, 1, H, W] to raw logits [N, labels, H/2, W/2].

    H and W are multiples of 2 to the number of widths: the stem halves once, every width after the first once more.

    The stem halves the size at once and the map stays there: most of the time of a U-Net goes into its full-size
    layers, and a defect that matters is wider than two pixels of the input. With `quarter` the stem halves it once
    more, which makes room for an input of twice the side; then of twice that.
    """

    def __init__(
        self, labels: int, widths: tuple[int, ...] = (16, 24, 48, 72), prior: float = 0.01, quarter: bool = False
    ):
        super().__init__()
        second = conv_bn(widths[0], widths[0], stride=2 if quarter else 1)
        self.stem = nn.Sequential(*conv_bn(1, widths[0], 5, 2), nn.ReLU(), *second, nn.ReLU())
        self.down = nn.ModuleList(Block(a, b, stride=2) for a, b in zip(widths, widths[1:]))
        self.squeeze = nn.ModuleList(
            nn.Sequential(*conv_bn(b, a, 1), nn.ReLU()) for a, b in zip(widths, widths[1:])
        )
        self.merge = nn.ModuleList(nn.Sequential(*conv_bn(a, a), nn.ReLU()) for a in widths[:-1])
        self.grow = nn.Upsample(scale_factor=2, mode="nearest")
        self.head = nn.Conv2d(widths[0], labels, 1)
        # Start from the true rarity of defect pixels, else the first epochs are spent on learning it.
        nn.init.constant_(self.head.bias, torch.logit(torch.tensor(prior)).item())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = [self.stem(x)]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = levels.pop()
        for squeeze, merge in zip(reversed(self.squeeze), reversed(self.merge)):
            x = merge(self.grow(squeeze(x)) + levels.pop())
        return self.head(x)
