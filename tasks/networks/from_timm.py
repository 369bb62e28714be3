"""Any classifier of timm, by its name there; on request made to fit images that are smaller than those it was made for.

timm takes two seconds to import: it is imported only where such a network is asked for.
"""

import re
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

PREFIX = "timm/"
# After the dot which of the weights that timm has of it: timm/resnet18.a1_in1k.
NAME = re.compile(r"timm/[a-z0-9_]+(\.[a-z0-9_]+)?")
SMALLEST = 3  # pixels: how high and wide the last map of a network with a small stem is, at least
PATCHES = 7  # how many patches high and wide an image is for a transformer with a small stem, at least


class NetworkError(ValueError):
    """There is no such network, or it cannot be built as asked; the message says what would be right."""


def create(
    name: str,
    image_shape: tuple[int, int, int],
    classes: int,
    stem: str,
    drop_rate: float,
    drop_path_rate: float,
) -> nn.Module:
    """Build a network of timm with the initial weights that torch's random generator gives.

    Args:
        name: timm's, without the prefix.
        stem: small: as long as the last map, or the number of patches, is too small, the first layers that shrink an
            image do so no longer | as_built.
        drop_rate: of the features before the last layer.
        drop_path_rate: of residual branches.

    Raises:
        NetworkError: timm has none of that name, or it cannot be built so, or takes no such images.
    """
    height, width, channels = image_shape
    arguments: dict[str, Any] = {"num_classes": classes, "in_chans": channels, "drop_rate": drop_rate}
    if drop_path_rate:
        arguments["drop_path_rate"] = drop_path_rate
    if configuration(name).fixed_input_size:
        arguments["img_size"] = (height, width)
        if stem == "small" and (patch_size := _patch_size(name, min(height, width))):
            arguments["patch_size"] = patch_size
    network = _built(name, arguments)
    image = torch.zeros(1, channels, height, width)
    if stem == "small" and "img_size" not in arguments:
        _enlarge(network, image)
    try:
        shape = list(_logits(network, image).shape)
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError, ZeroDivisionError) as error:
        raise NetworkError(
            f"train.network = {PREFIX}{name} does not take images of {height} x {width} x {channels}: choose "
            f"a larger transform.image_size, train.timm.stem: small, or another network. It says: {_short(error)}"
        ) from None
    if shape != [1, classes]:
        raise NetworkError(f"train.network = {PREFIX}{name} gives {shape} for an image, not a logit for each class")
    return network.train()


def configuration(name: str) -> Any:
    """Return what timm knows of a network and of its weights, its `PretrainedCfg`, which has no types.

    Raises:
        NetworkError: timm has no network, or no weights, of that name; the nearest names are listed.
    """
    import timm

    network, _, weights = name.partition(".")
    if not timm.is_model(network):
        nearest = get_close_matches(network, timm.list_models(), n=5, cutoff=0.5)
        near = f"; near it are {', '.join(nearest)}" if nearest else ""
        raise NetworkError(
            f"train.network = {PREFIX}{name}: timm {timm.__version__} has no network of that name{near}. "
            "All names: python -c 'import timm; print(*timm.list_models())'"
        )
    if weights and not timm.is_model_pretrained(name):
        known = timm.list_pretrained(f"{network}.*")
        raise NetworkError(f"train.network = {PREFIX}{name}: timm has no such weights; known: {', '.join(known)}")
    return timm.get_pretrained_cfg(name)


def _built(name: str, arguments: dict[str, Any]) -> nn.Module:
    import timm

    try:
        return timm.create_model(name, pretrained=False, **arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError, ZeroDivisionError) as error:
        given = ", ".join(f"{key} = {value}" for key, value in arguments.items())
        raise NetworkError(f"train.network = {PREFIX}{name} cannot be built with {given}: {_short(error)}") from None


def _patch_size(name: str, side: int) -> int | None:
    """Return the size of patches of which an image of `side` has enough; None where its own does, or it has none."""
    with torch.device("meta"):
        embed = getattr(_built(name, {}), "patch_embed", None)
    own = getattr(embed, "patch_size", None)
    if own is None:
        return None
    size = smallest = max(own) if isinstance(own, tuple) else int(own)
    while side // size < PATCHES and size > 1:
        size //= 2
    return size if size < smallest else None


def _enlarge(network: nn.Module, image: Tensor) -> None:
    """Let the first layers that shrink the map do so no longer, level by level, until the last map is large enough."""
    while True:
        inputs, last = _shrinking(network, image)
        if last >= SMALLEST or not inputs:
            return
        # All at one level: the convolution of a block and that of the shortcut around it.
        for name in [name for name, side in inputs.items() if side == max(inputs.values())]:
            layer = network.get_submodule(name)
            if isinstance(layer, nn.Conv2d):
                layer.stride = (1, 1)
            else:
                network.set_submodule(name, nn.Identity())


def _shrinking(network: nn.Module, image: Tensor) -> tuple[dict[str, int], int]:
    """Tell which convolutions and poolings shrink the map, and how small it becomes.

    Returns:
        Of each the shorter side of its input, and that of the last one's output: 0, where the map gets too small for
        the network to go on.
    """
    inputs: dict[str, int] = {}
    last = min(image.shape[2:])

    def before(name: str, given: Tensor) -> None:
        inputs[name] = min(given.shape[2:])

    def after(given: Tensor) -> None:
        nonlocal last
        last = min(given.shape[2:])

    handles = []
    for name, layer in network.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)) and _stride(layer) > 1:
            handles.append(layer.register_forward_pre_hook(lambda _, given, name=name: before(name, given[0])))
            handles.append(layer.register_forward_hook(lambda _, __, given: after(given)))
    try:
        _logits(network, image)
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError, ZeroDivisionError):
        last = 0
    finally:
        for handle in handles:
            handle.remove()
    return inputs, last


def _stride(layer: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) -> int:
    return max(layer.stride) if isinstance(layer.stride, tuple) else layer.stride


@torch.no_grad()
def _logits(network: nn.Module, image: Tensor) -> Tensor:
    logits: Tensor = network.eval()(image)
    return logits


def _short(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
