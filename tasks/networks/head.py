"""The head of a network, which gives the logits, and the backbone, which is all the rest."""

from torch import nn


def head_layers(network: nn.Module) -> tuple[str, ...]:
    """Name the layers of the head: as timm has them; of other networks it is the last linear layer."""
    named = getattr(network, "pretrained_cfg", {}).get("classifier")
    if named:
        return (named,) if isinstance(named, str) else tuple(named)
    return tuple([name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)][-1:])


def in_head(name: str, layers: tuple[str, ...]) -> bool:
    """Tell whether the tensor `name` is one of the head's `layers`."""
    return any(name.startswith(f"{layer}.") for layer in layers)
