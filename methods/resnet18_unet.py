"""The ResNet-18 variant of the ResNet-34 U-Net, which Pionono's code uses for CM-Pixel to save memory."""

from __future__ import annotations

from .backbones import ResNet34UNet


class ResNet18UNet(ResNet34UNet):
    """`ResNet34UNet` with fewer blocks in the encoder; the levels have the same widths.

    Args:
        channels: image channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        from monai.networks.nets.resnet import resnet18

        self.encoder = resnet18(
            spatial_dims=2,
            n_input_channels=channels,
            shortcut_type="B",
            bias_downsample=False,
            conv1_t_size=7,
            conv1_t_stride=2,
            feed_forward=False,
        )
