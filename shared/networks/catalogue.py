"""The networks there are: which MONAI class stands behind a name, what the job decides, and small defaults.

The defaults keep the published layers and are narrow: hospitals train on a processor as often as not, and the noise of
differential privacy grows with the number of parameters. The published width is one option away, as each entry says.

A text `"group"` for the normalisation, the default everywhere, is a GroupNorm with as many groups as fit (see
`shared.networks.surgery`), whatever the number of channels.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from shared.errors import BadInput
from shared.job import Job

Options = dict[str, Any]

# Keys that no job may give, and why.
_FROM_JOB = "the job says it elsewhere: [images] channels and size, classes"
_ONE_OUTPUT = "training takes one output, the logits"
_ITS_NAME = "the name of the network decides it"
_NOTHING_KEPT = "nothing may be kept between forward passes"
_NOT_PASSED_ON = "MONAI does not hand it to the blocks"
_DEPRECATED = "MONAI has deprecated it; give norm"
_CUTS_GRADIENT = "MONAI's other shortcut passes no gradient on"


@dataclass(frozen=True)
class Entry:
    """One network by name.

    Attributes:
        name: in a job.
        task: what it is for.
        kind: the class, as module:name.
        defaults: the options that a job leaves out, from those it gives and the number of dimensions. They are as
            text and numbers a job could hold itself.
        from_job: the class's own names for what follows from the job: channels in, outputs, and the size if it asks.
        fixed: arguments that no job may give, with the value and the reason.
        norm: the option that chooses the normalisation, if there is one.
    """

    name: str
    task: Literal["segmentation", "classification"]
    kind: str
    defaults: Callable[[Mapping[str, Any], int], Options]
    from_job: tuple[str, str, str | None] = ("in_channels", "out_channels", None)
    fixed: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    norm: str | None = "norm"

    def decided(self) -> dict[str, str]:
        """The arguments that no job may give → why."""
        keys = {"spatial_dims": _FROM_JOB} | {key: _FROM_JOB for key in self.from_job if key is not None}
        return keys | {key: why for key, (_, why) in self.fixed.items()}

    def arguments(self, job: Job, size: tuple[int, ...]) -> Options:
        """What the class is called with for images of this size, the job's options aside."""
        channels, outputs, extent = self.from_job
        arguments: Options = {"spatial_dims": len(size), channels: job.images.channels, outputs: len(job.classes)}
        if extent == "image_size":  # EfficientNet: one number for all axes, from which it takes its paddings
            arguments[extent] = min(size)
        elif extent is not None:
            arguments[extent] = size
        return arguments | {key: value for key, (value, _) in self.fixed.items()}


def _levels(given: Mapping[str, Any], *, widths: str, strides: str, extra: int) -> Options:
    """Widths that double and strides of 2, as many as the other of the two lists says.

    Args:
        given: the job's options.
        widths: the key of the list of channels.
        strides: the key of the list of strides.
        extra: how many more widths than strides there are.
    """
    if isinstance(given.get(widths), list | tuple):
        count = len(given[widths])
    elif isinstance(given.get(strides), list | tuple):
        count = len(given[strides]) + extra
    else:
        count = 3
    down = [2] * max(count - 1, 0)
    return {widths: [16 * 2**level for level in range(count)], strides: down if extra else [1, *down]}


def _unet(given: Mapping[str, Any], dimensions: int) -> Options:
    levels = _levels(given, widths="channels", strides="strides", extra=1)
    return {**levels, "num_res_units": 0, "norm": "group", "dropout": 0.0}


def _basic_unet(given: Mapping[str, Any], dimensions: int) -> Options:
    return {"features": [16, 16, 32, 64, 128, 16], "norm": "group", "dropout": 0.0}


def _seg_resnet(given: Mapping[str, Any], dimensions: int) -> Options:
    down = given.get("blocks_down")
    up = [1] * max(len(down) - 1, 0) if isinstance(down, list | tuple) else [1, 1, 1]
    # deconv: the backward pass of MONAI's default, interpolation, is not deterministic on a GPU.
    return {
        "init_filters": 8,
        "blocks_down": [1, 2, 2, 4],
        "blocks_up": up,
        "upsample_mode": "deconv",
        "norm": "group",
        "dropout_prob": 0.0,
    }


def _dyn_unet(given: Mapping[str, Any], dimensions: int) -> Options:
    levels = _levels(given, widths="filters", strides="strides", extra=0)
    strides = given.get("strides", levels["strides"])
    strides = list(strides) if isinstance(strides, list | tuple) else []
    return {
        **levels,
        "kernel_size": [3] * len(strides),
        "upsample_kernel_size": strides[1:],
        "norm_name": "group",
        "dropout": 0.0,
    }


def _attention_unet(given: Mapping[str, Any], dimensions: int) -> Options:
    return {**_levels(given, widths="channels", strides="strides", extra=1), "dropout": 0.0}


def _unetr(given: Mapping[str, Any], dimensions: int) -> Options:
    widths = {"feature_size": 8, "hidden_size": 96, "mlp_dim": 192, "num_heads": 4}
    return {**widths, "norm_name": "group", "dropout_rate": 0.0}


def _densenet(given: Mapping[str, Any], dimensions: int) -> Options:
    # Huang et al. 2017: init_features = 64, growth_rate = 32.
    return {"init_features": 16, "growth_rate": 8, "norm": "group", "dropout_prob": 0.0}


def _resnet(given: Mapping[str, Any], dimensions: int) -> Options:
    # He et al. 2016: block_inplanes = [64, 128, 256, 512].
    return {"block_inplanes": [16, 32, 64, 128], "conv1_t_size": 7, "conv1_t_stride": 2}


def _efficientnet(given: Mapping[str, Any], dimensions: int) -> Options:
    # Tan and Le 2019: width_coefficient = 1.0, and dropout 0.2 of both kinds.
    return {
        "width_coefficient": 0.5,
        "depth_coefficient": 1.0,
        "norm": "group",
        "dropout_rate": 0.0,
        "drop_connect_rate": 0.0,
    }


def _vit(given: Mapping[str, Any], dimensions: int) -> Options:
    # Dosovitskiy et al. 2021, ViT-B: 12 layers, hidden_size 768, mlp_dim 3072, num_heads 12, patch_size 16.
    widths = {"hidden_size": 96, "mlp_dim": 192, "num_layers": 6, "num_heads": 4}
    return {"patch_size": 8, **widths, "dropout_rate": 0.0}


# Table 1 of Tan and Le 2019, in the notation of MONAI's EfficientNetBN.
_B0 = (
    "r1_k3_s11_e1_i32_o16_se0.25",
    "r2_k3_s22_e6_i16_o24_se0.25",
    "r2_k5_s22_e6_i24_o40_se0.25",
    "r3_k3_s22_e6_i40_o80_se0.25",
    "r3_k5_s11_e6_i80_o112_se0.25",
    "r4_k5_s22_e6_i112_o192_se0.25",
    "r1_k3_s11_e6_i192_o320_se0.25",
)

_ENTRIES = (
    Entry("UNet", "segmentation", "monai.networks.nets:UNet", _unet),
    Entry("BasicUNet", "segmentation", "monai.networks.nets:BasicUNet", _basic_unet),
    Entry(
        "SegResNet",
        "segmentation",
        "monai.networks.nets:SegResNet",
        _seg_resnet,
        fixed={"use_conv_final": (True, _ONE_OUTPUT), "norm_name": ("", _DEPRECATED), "num_groups": (8, _DEPRECATED)},
    ),
    Entry(
        "DynUNet",
        "segmentation",
        "monai.networks.nets:DynUNet",
        _dyn_unet,
        fixed={"deep_supervision": (False, _ONE_OUTPUT), "deep_supr_num": (1, _ONE_OUTPUT)},
        norm="norm_name",
    ),
    Entry("AttentionUnet", "segmentation", "monai.networks.nets:AttentionUnet", _attention_unet, norm=None),
    Entry(
        "UNETR",
        "segmentation",
        "monai.networks.nets:UNETR",
        _unetr,
        from_job=("in_channels", "out_channels", "img_size"),
        fixed={"save_attn": (False, _NOTHING_KEPT)},
        norm="norm_name",
    ),
    Entry(
        "DenseNet121",
        "classification",
        "monai.networks.nets:DenseNet",
        _densenet,
        fixed={
            "block_config": ((6, 12, 24, 16), _ITS_NAME),
        },
    ),
    Entry(
        "ResNet18",
        "classification",
        "monai.networks.nets:ResNet",
        _resnet,
        from_job=("n_input_channels", "num_classes", None),
        fixed={
            "block": ("basic", _ITS_NAME),
            "layers": ((2, 2, 2, 2), _ITS_NAME),
            "feed_forward": (True, _ONE_OUTPUT),
            "shortcut_type": ("B", _CUTS_GRADIENT),
            "norm": ("batch", _NOT_PASSED_ON),
            "act": (("relu", {"inplace": False}), _NOT_PASSED_ON),
        },
        norm=None,
    ),
    Entry(
        "EfficientNetB0",
        "classification",
        "monai.networks.nets:EfficientNet",
        _efficientnet,
        from_job=("in_channels", "num_classes", "image_size"),
        fixed={"blocks_args_str": (_B0, _ITS_NAME)},
    ),
    Entry(
        "ViT",
        "classification",
        "shared.networks.surgery:ViTLogits",
        _vit,
        from_job=("in_channels", "num_classes", "img_size"),
        fixed={
            "classification": (True, _ONE_OUTPUT),
            "post_activation": ("", _ONE_OUTPUT),
            "save_attn": (False, _NOTHING_KEPT),
        },
        norm=None,
    ),
)
ENTRIES = {entry.name: entry for entry in _ENTRIES}


def find(job: Job) -> Entry:
    """The entry a job names.

    Raises:
        BadInput: if there is none, or it is for the other task.
    """
    fitting = [entry.name for entry in _ENTRIES if entry.task == job.task]
    name = job.network.name
    if name not in ENTRIES:
        near = difflib.get_close_matches(name.casefold(), [entry.casefold() for entry in ENTRIES], n=1)
        hint = "".join(f", did you mean {entry}" for entry in ENTRIES if entry.casefold() in near)
        raise BadInput(f"[network] name: there is no {name[:80]!r}{hint}; for {job.task}: {', '.join(fitting)}")
    entry = ENTRIES[name]
    if entry.task != job.task:
        raise BadInput(f"[network] name: {name} is for {entry.task}; for {job.task}: {', '.join(fitting)}")
    return entry
