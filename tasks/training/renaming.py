"""Names of weights of EfficientNet-PyTorch, in which much on the package registry is, as timm has them."""

from torch import Tensor, nn

OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
    **SQUEEZE,
}
WITHOUT_EXPANSION = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2", **SQUEEZE}


def renamed(state_dict: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Rename the weights if they are EfficientNet-PyTorch's and `network` is an EfficientNet of timm.

    There blocks are numbered through, here within stages.
    """
    stages = getattr(network, "blocks", None)
    if "_conv_stem.weight" not in state_dict or not isinstance(stages, nn.Sequential):
        return state_dict
    places = [
        f"{stage}.{block}" for stage, blocks in enumerate(stages) for block in range(len(list(blocks.children())))
    ]
    new: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        first, _, rest = name.partition(".")
        if first == "_blocks":
            number, layer, kind = rest.split(".")
            names = BLOCK if f"_blocks.{number}._expand_conv.weight" in state_dict else WITHOUT_EXPANSION
            new[f"blocks.{places[int(number)]}.{names[layer]}.{kind}"] = tensor
        else:
            new[f"{OUTSIDE[first]}.{rest}"] = tensor
    return new
