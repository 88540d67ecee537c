"""The peers' networks in PyTorch, for tests alone: their layers under their names."""

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is in the extra `parity`")
nn = torch.nn

UNITS = {4: (0, 0, 0, 0), 10: (0, 1, 2, 0), 20: (1, 2, 4, 1)}
IRES_UNITS = {18: (2, 2, 2, 2), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3), 200: (6, 26, 60, 6)}


def conv(before, after, kernel=3, stride=1, padding=1, groups=1, bias=False):
    return nn.Conv2d(before, after, kernel, stride, padding, groups=groups, bias=bias)


class Sphere20a(nn.Module):
    def __init__(self, channels, dim, size, classes=None):
        super().__init__()
        before = 3
        self.plan = UNITS[20]
        for number, (width, units) in enumerate(zip(channels, self.plan, strict=True), 1):
            self.add(f"{number}_1", before, width, 2)
            for index in range(2, 2 + 2 * units):
                self.add(f"{number}_{index}", width, width, 1)
            before = width
        self.fc5 = nn.Linear(before * size[0] * size[1], dim)
        if classes is not None:
            self.fc6 = nn.Module()
            self.fc6.weight = nn.Parameter(torch.randn(dim, classes))

    def add(self, name, before, after, stride):
        setattr(self, f"conv{name}", conv(before, after, stride=stride, bias=True))
        setattr(self, f"relu{name}", nn.PReLU(after))

    def layer(self, name, x):
        return getattr(self, f"relu{name}")(getattr(self, f"conv{name}")(x))

    def forward(self, x):
        for number, units in enumerate(self.plan, 1):
            x = self.layer(f"{number}_1", x)
            for index in range(2, 2 + 2 * units, 2):
                x = x + self.layer(f"{number}_{index + 1}", self.layer(f"{number}_{index}", x))
        return self.fc5(x.flatten(1))


class SFLayers(nn.Module):
    """A unit of SFNet, or with `stride` the convolution that opens a stage."""

    def __init__(self, before, after, stride, norm, deprecated):
        super().__init__()
        self.opens, self.deprecated = stride == 2, deprecated
        norm_layer = nn.BatchNorm2d if norm else nn.Identity
        if self.opens and deprecated:
            self.conv = conv(before, after, stride=2, bias=True)
            return
        self.conv1 = conv(before, after, stride=stride, bias=not norm)
        if not deprecated:
            self.bn1 = norm_layer(after)
        if not self.opens:
            self.conv2 = conv(after, after, bias=not norm)
            if not deprecated:
                self.bn2 = norm_layer(after)

    def forward(self, x):
        if self.deprecated:
            if self.opens:
                return self.conv(x).relu()
            return self.conv2(self.conv1(x).relu()).relu() + x
        inner = self.bn1(self.conv1(x)).relu()
        return inner if self.opens else (self.bn2(self.conv2(inner)) + x).relu()


class SFNet(nn.Module):
    def __init__(self, depth, channels, dim, size, norm=False, deprecated=False):
        super().__init__()
        before = 3
        for number, (width, units) in enumerate(zip(channels, UNITS[depth], strict=True), 1):
            layers = [SFLayers(before, width, 2, norm, deprecated)]
            layers += [SFLayers(width, width, 1, norm, deprecated) for _ in range(units)]
            setattr(self, f"layer{number}", nn.Sequential(*layers))
            before = width
        self.fc = nn.Linear(before * size[0] * size[1], dim)
        self.features = nn.BatchNorm1d(dim) if norm else nn.Identity()

    def forward(self, x):
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.features(self.fc(x.flatten(1)))


class IResUnit(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(before), conv(before, after)
        self.bn2, self.prelu = nn.BatchNorm2d(after), nn.PReLU(after)
        self.conv2, self.bn3 = conv(after, after, stride=stride), nn.BatchNorm2d(after)
        self.downsample = None
        if stride > 1:
            shortcut = conv(before, after, kernel=1, stride=stride, padding=0)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(after))

    def forward(self, x):
        inner = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        inner = self.bn3(self.conv2(inner))
        return inner + (x if self.downsample is None else self.downsample(x))


class IResNet(nn.Module):
    def __init__(self, depth, channels, dim, size):
        super().__init__()
        before = channels[0]
        self.conv1, self.bn1 = conv(3, before), nn.BatchNorm2d(before)
        self.prelu = nn.PReLU(before)
        for number, (width, units) in enumerate(zip(channels, IRES_UNITS[depth], strict=True), 1):
            layers = [
                IResUnit(before if i == 0 else width, width, 1 + (i == 0)) for i in range(units)
            ]
            setattr(self, f"layer{number}", nn.Sequential(*layers))
            before = width
        self.bn2 = nn.BatchNorm2d(before)
        self.fc = nn.Linear(before * size[0] * size[1], dim)
        self.features = nn.BatchNorm1d(dim)

    def forward(self, x):
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.features(self.fc(self.bn2(x).flatten(1)))


class Layers(nn.Module):
    """A sequence called `layers`, with a sum around it if it is residual."""

    def __init__(self, *layers, residual=False):
        super().__init__()
        self.layers, self.residual = nn.Sequential(*layers), residual

    def forward(self, x):
        return x + self.layers(x) if self.residual else self.layers(x)


def conv_norm(before, after, *args, linear=False, **kwargs):
    layers = [conv(before, after, *args, **kwargs), nn.BatchNorm2d(after)]
    return Layers(*layers, *([] if linear else [nn.PReLU(after)]))


def bottleneck(before, after, inner, stride):
    return Layers(
        conv_norm(before, inner, 1, padding=0),
        conv_norm(inner, inner, 3, stride, groups=inner),
        conv_norm(inner, after, 1, padding=0, linear=True),
        residual=stride == 1,
    )


class MobileFaceNet(nn.Module):
    """InsightFace's, by its `scale` and `blocks`; the first block counts 1 for a convolution."""

    def __init__(self, channels, dim, size, *, scale=2, blocks=(1, 4, 6, 2)):
        super().__init__()
        groups, inner, further, widest = channels
        narrow, wide = inner * scale // 2, further * scale // 2

        def residual(width, inner, count):
            return Layers(*(bottleneck(width, width, inner, 1) for _ in range(count)))

        self.layers = nn.ModuleList(
            [
                conv_norm(3, narrow, 3, 2),
                conv_norm(narrow, narrow, groups=groups)
                if blocks[0] == 1
                else residual(narrow, inner, blocks[0]),
                bottleneck(narrow, narrow, inner, 2),
                residual(narrow, inner, blocks[1]),
                bottleneck(narrow, wide, further, 2),
                residual(wide, further, blocks[2]),
                bottleneck(wide, wide, widest, 2),
                residual(wide, further, blocks[3]),
            ]
        )
        self.conv_sep = conv_norm(wide, widest, 1, padding=0)
        self.features = Layers(
            conv_norm(widest, widest, size, padding=0, groups=widest, linear=True),
            nn.Flatten(),
            nn.Linear(widest, dim, bias=False),
            nn.BatchNorm1d(dim),
        )

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.features(self.conv_sep(x))


class FoamliuBottleneck(nn.Module):
    def __init__(self, before, after, inner, stride):
        super().__init__()
        self.residual = stride == 1
        self.conv = nn.Sequential(
            nn.Sequential(conv(before, inner, 1, padding=0), nn.BatchNorm2d(inner), nn.ReLU6()),
            nn.Sequential(
                conv(inner, inner, 3, stride, groups=inner), nn.BatchNorm2d(inner), nn.ReLU6()
            ),
            conv(inner, after, 1, padding=0),
            nn.BatchNorm2d(after),
        )

    def forward(self, x):
        return x + self.conv(x) if self.residual else self.conv(x)


class FoamliuMobileFaceNet(nn.Module):
    """foamliu's: ReLU6, a separable second layer, a bias in the last."""

    def __init__(self, channels, dim, size):
        super().__init__()
        _, inner, further, widest = channels
        narrow, wide = inner // 2, further // 2
        self.conv1 = nn.Sequential(conv(3, narrow, 3, 2), nn.BatchNorm2d(narrow), nn.ReLU6())
        self.dw_conv = nn.Module()
        self.dw_conv.depthwise = conv(narrow, narrow, groups=narrow)
        self.dw_conv.pointwise = conv(narrow, narrow, 1, padding=0)
        self.dw_conv.bn1, self.dw_conv.bn2 = nn.BatchNorm2d(narrow), nn.BatchNorm2d(narrow)
        plans = ((narrow, narrow, inner, inner, 4), (narrow, wide, further, further, 6))
        plans += ((wide, wide, widest, further, 2),)
        layers = []
        for before, after, halving, keeping, count in plans:
            layers += [FoamliuBottleneck(before, after, halving, 2)]
            layers += [FoamliuBottleneck(after, after, keeping, 1) for _ in range(count)]
        self.features = nn.Sequential(*layers)
        self.conv2 = nn.Sequential(
            conv(wide, widest, 1, padding=0), nn.BatchNorm2d(widest), nn.ReLU6()
        )
        self.gdconv = nn.Module()
        self.gdconv.depthwise = conv(widest, widest, size, padding=0, groups=widest)
        self.gdconv.bn = nn.BatchNorm2d(widest)
        self.conv3 = conv(widest, dim, 1, padding=0, bias=True)
        self.bn = nn.BatchNorm2d(dim)

    def forward(self, x):
        second = self.dw_conv
        x = second.bn1(second.depthwise(self.conv1(x))).relu()
        x = second.bn2(second.pointwise(x)).relu()
        x = self.gdconv.depthwise(self.conv2(self.features(x)))
        x = self.bn(self.conv3(self.gdconv.bn(x)))
        return x.view(x.size(0), -1)


class Attention(nn.Module):
    """Of one call, or written out as in InsightFace."""

    def __init__(self, width, heads, written_out):
        super().__init__()
        self.heads, self.written_out = heads, written_out
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        if self.written_out:
            batch, tokens, width = x.shape
            parts = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
            parts = parts.permute(2, 0, 3, 1, 4)
            q, k, v = parts[0], parts[1], parts[2]
            similarity = (q @ k.transpose(-2, -1)) * (width // self.heads) ** -0.5
            mixed = similarity.softmax(-1) @ v
            return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        parts = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class VitBlock(nn.Module):
    def __init__(self, width, heads, written_out):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads, written_out)
        self.norm2, self.mlp = nn.LayerNorm(width), nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp.fc2(nn.functional.relu6(self.mlp.fc1(self.norm2(x))))


class VisionTransformer(nn.Module):
    def __init__(self, depth, width, dim, size, written_out=False):
        super().__init__()
        tokens = (size[0] // 9) * (size[1] // 9)
        self.pos_embed = nn.Parameter(torch.randn(1, tokens, width))
        self.mask_token = nn.Parameter(torch.randn(1, 1, width))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, 9, 9)
        self.blocks = nn.Sequential(*(VitBlock(width, 8, written_out) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.feature = nn.Sequential(
            nn.Linear(tokens * width, width, bias=False),
            nn.BatchNorm1d(width, eps=2e-5),
            nn.Linear(width, dim, bias=False),
            nn.BatchNorm1d(dim, eps=2e-5),
        )

    def forward(self, x):
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2) + self.pos_embed
        return self.feature(self.norm(self.blocks(x)).flatten(1))


class IrUnit(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        self.shortcut_layer = nn.MaxPool2d(1, stride)
        if before != after:
            shortcut = conv(before, after, kernel=1, stride=stride, padding=0)
            self.shortcut_layer = nn.Sequential(shortcut, nn.BatchNorm2d(after))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            conv(before, after),
            nn.BatchNorm2d(after),
            nn.PReLU(after),
            conv(after, after, stride=stride),
            nn.BatchNorm2d(after),
        )

    def forward(self, x):
        return self.shortcut_layer(x) + self.res_layer(x)


class AdaFaceIr(nn.Module):
    def __init__(self, depth, channels, dim, size):
        super().__init__()
        before, units = channels[0], []
        self.input_layer = nn.Sequential(conv(3, before), nn.BatchNorm2d(before), nn.PReLU(before))
        for width, count in zip(channels, IRES_UNITS[depth], strict=True):
            units += [
                IrUnit(before, width, 2),
                *(IrUnit(width, width, 1) for _ in range(count - 1)),
            ]
            before = width
        self.body = nn.Sequential(*units)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(before * size[0] * size[1], dim),
            nn.BatchNorm1d(dim, affine=False),
        )

    def forward(self, x):
        return self.output_layer(self.body(self.input_layer(x)))


class ConvBlock(nn.Module):
    """Of Xiaoccer's and TreB1eN's networks."""

    def __init__(self, before, after, kernel=1, stride=1, padding=0, groups=1, linear=False):
        super().__init__()
        self.conv = conv(before, after, kernel, stride, padding, groups)
        self.bn = nn.BatchNorm2d(after)
        if not linear:
            self.prelu = nn.PReLU(after)

    def forward(self, x):
        x = self.bn(self.conv(x))
        return self.prelu(x) if hasattr(self, "prelu") else x


def mobile_plan(channels):
    """Before, after, inside, stride and number of the bottlenecks of the paper's network."""
    _, inner, further, widest = channels
    narrow, wide = inner // 2, further // 2
    return (
        (narrow, narrow, inner, 2, 1),
        (narrow, narrow, inner, 1, 4),
        (narrow, wide, further, 2, 1),
        (wide, wide, further, 1, 6),
        (wide, wide, widest, 2, 1),
        (wide, wide, further, 1, 2),
    )


class XiaoccerBottleneck(nn.Module):
    def __init__(self, before, after, inner, stride):
        super().__init__()
        self.connect = stride == 1
        self.conv = nn.Sequential(
            conv(before, inner, 1, padding=0),
            nn.BatchNorm2d(inner),
            nn.PReLU(inner),
            conv(inner, inner, 3, stride, groups=inner),
            nn.BatchNorm2d(inner),
            nn.PReLU(inner),
            conv(inner, after, 1, padding=0),
            nn.BatchNorm2d(after),
        )

    def forward(self, x):
        return x + self.conv(x) if self.connect else self.conv(x)


class XiaoccerMobileFaceNet(nn.Module):
    def __init__(self, channels, dim, size):
        super().__init__()
        narrow, wide, widest = channels[1] // 2, channels[2] // 2, channels[3]
        self.conv1 = ConvBlock(3, narrow, 3, 2, 1)
        self.dw_conv1 = ConvBlock(narrow, narrow, 3, 1, 1, groups=narrow)
        self.blocks = nn.Sequential(
            *(
                XiaoccerBottleneck(*widths)
                for *widths, count in mobile_plan(channels)
                for _ in range(count)
            )
        )
        self.conv2 = ConvBlock(wide, widest)
        self.linear7 = ConvBlock(widest, widest, size, groups=widest, linear=True)
        self.linear1 = ConvBlock(widest, dim, linear=True)

    def forward(self, x):
        x = self.conv2(self.blocks(self.dw_conv1(self.conv1(x))))
        return self.linear1(self.linear7(x)).flatten(1)


class DepthWise(nn.Module):
    def __init__(self, before, after, inner, stride):
        super().__init__()
        self.conv = ConvBlock(before, inner)
        self.conv_dw = ConvBlock(inner, inner, 3, stride, 1, groups=inner)
        self.project = ConvBlock(inner, after, linear=True)
        self.residual = stride == 1

    def forward(self, x):
        inner = self.project(self.conv_dw(self.conv(x)))
        return x + inner if self.residual else inner


class Model(nn.Module):
    """A sequence called `model`."""

    def __init__(self, *layers):
        super().__init__()
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return self.model(x)


class TrebienMobileFaceNet(nn.Module):
    def __init__(self, channels, dim, size):
        super().__init__()
        narrow, wide, widest = channels[1] // 2, channels[2] // 2, channels[3]
        self.conv1 = ConvBlock(3, narrow, 3, 2, 1)
        self.conv2_dw = ConvBlock(narrow, narrow, 3, 1, 1, groups=narrow)
        names = ("conv_23", "conv_3", "conv_34", "conv_4", "conv_45", "conv_5")
        for name, (*widths, count) in zip(names, mobile_plan(channels), strict=True):
            layers = [DepthWise(*widths) for _ in range(count)]
            setattr(self, name, layers[0] if widths[3] == 2 else Model(*layers))
        self.conv_6_sep = ConvBlock(wide, widest)
        self.conv_6_dw = ConvBlock(widest, widest, size, groups=widest, linear=True)
        self.linear = nn.Linear(widest, dim, bias=False)
        self.bn = nn.BatchNorm1d(dim)

    def forward(self, x):
        x = self.conv_3(self.conv_23(self.conv2_dw(self.conv1(x))))
        x = self.conv_5(self.conv_45(self.conv_4(self.conv_34(x))))
        return self.bn(self.linear(self.conv_6_dw(self.conv_6_sep(x)).flatten(1)))


def randomized(network: nn.Module, seed: int = 0) -> nn.Module:
    """Gives a network random weights and random batch statistics that keep its signal's size."""
    generator = torch.Generator().manual_seed(seed)

    def draw(tensor, low, high):
        tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    for module in network.modules():
        if isinstance(module, nn.PReLU):
            draw(module.weight, 0.1, 0.4)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            if module.affine:
                draw(module.weight, 0.5, 1.5)
                draw(module.bias, -0.5, 0.5)
            draw(module.running_mean, -0.5, 0.5)
            draw(module.running_var, 0.5, 2)
            module.num_batches_tracked.fill_(7)
        elif isinstance(module, nn.LayerNorm):
            draw(module.weight, 0.5, 1.5)
            draw(module.bias, -0.5, 0.5)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            spread = (3 / module.weight[0].numel()) ** 0.5
            draw(module.weight, -spread, spread)
            if module.bias is not None:
                draw(module.bias, -0.3, 0.3)
    return network.eval()
