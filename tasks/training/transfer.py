"""Begin with weights that were trained before, of a file or of the hub, and with a new head.

Files are read without running code that may be in them. Each is known by its SHA-256 in params.yaml, so that another
file is another parameter for DVC.
"""

import hashlib
import io
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from tasks.harness.errors import StageError, listed
from tasks.harness.records import read_record
from tasks.model.classifier import Description, digest
from tasks.networks import from_timm
from tasks.networks.head import head_layers, in_head
from tasks.params.train import Train
from tasks.training import packages, renaming

CACHE = Path(".cache/hub")
FILE = "model.safetensors"  # of a network on the hub
MOST = 5  # tensors in a message


@dataclass(frozen=True)
class Weights:
    """What was read of a file of weights."""

    path: Path
    state_dict: dict[str, Tensor]


def read(params: Train) -> Weights | None:
    """Read the weights of `train.transfer`, if there are to be any.

    Raises:
        StageError: the hub is out of reach or has none; the file is missing, not the one of the SHA-256, not one of
            weights alone, or holds values that are no finite numbers.
    """
    wanted = params.transfer.weights
    if wanted is None:
        return None
    path = _fetched(params.network) if wanted == "hub" else Path(wanted)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        how = packages.how_to_get(params.transfer.sha256)
        raise StageError(f"train.transfer.weights = {wanted}: there is no such file{how}") from None
    except OSError as error:
        raise StageError(f"train.transfer.weights = {wanted} cannot be read: {error.strerror}") from None
    sha256 = hashlib.sha256(content).hexdigest()
    expected = params.transfer.sha256
    if sha256 != expected:
        raise StageError(
            f"train.transfer.sha256 = {expected or 'null'}, but that of {path} is {sha256}: if this is the file that "
            f"you mean, write it to params.yaml, or run with -S train.transfer.sha256={sha256}"
        )
    return Weights(path, _tensors(path, content))


def statistics(weights: Weights, network: str, channels: int) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation per channel by which images were normalised when the weights were trained.

    Those of weights of this project stand in the model.json beside them, whatever the name of both; those of timm's
    networks timm knows.

    Raises:
        StageError: nobody knows them; or the JSON file describes other weights.
    """
    described = weights.path.with_suffix(".json")
    if described.is_file():
        description = read_record(described, Description)
        if description.state_dict != digest(weights.state_dict):
            raise StageError(f"{described} describes other weights than those of {weights.path}: bring both anew")
        mean, std = description.mean, description.std
    elif network.startswith(from_timm.PREFIX):
        known = from_timm.configuration(network.removeprefix(from_timm.PREFIX))
        mean, std = list(known.mean), list(known.std)
    else:
        raise StageError(
            f"train.normalize = pretrained: {described} is missing, the model.json that a training wrote with "
            f"{weights.path}: put it there, or choose another normalisation"
        )
    if len(mean) == channels:
        return mean, std
    return [sum(mean) / len(mean)] * channels, [sum(std) / len(std)] * channels


def begin_with(network: nn.Module, weights: Weights) -> list[str]:
    """Load the weights into the network, but for the head where it does not fit, and name what begins anew.

    The head does not fit where there are other numbers of classes. Positions and patches are resized as timm does, and
    a first convolution for images with other channels is adapted as timm does. A head that begins anew begins at zero,
    because where features outnumber images what is random in it stays (Kolesnikov et al., Big Transfer, ECCV 2020).

    Raises:
        StageError: other tensors do not fit; they are listed.
    """
    own, layers = network.state_dict(), head_layers(network)
    try:
        given = _adapted(renaming.renamed(weights.state_dict, network), network)
    except (RuntimeError, KeyError, ValueError, AttributeError, IndexError, TypeError) as error:
        raise StageError(f"{weights.path} holds weights of another network: timm says {error!r}") from None
    head = [name for name in own if in_head(name, layers)]
    new = [] if all(name in given and given[name].shape == own[name].shape for name in head) else head
    wrong = [
        *(f"{name} is missing" for name in own if name not in given and name not in new and not _counts(name)),
        *(f"{name} is none of its tensors" for name in given if name not in own and not in_head(name, layers)),
        *(
            f"{name} is {list(given[name].shape)} instead of {list(own[name].shape)}"
            for name in own
            if name in given and name not in new and given[name].shape != own[name].shape
        ),
    ]
    if wrong:
        raise StageError(
            f"{weights.path} does not fit train.network and the images: {listed(wrong, MOST, '; ')}. Choose the "
            "network whose weights they are, or other weights"
        )
    network.load_state_dict(own | {name: given[name] for name in own if name in given and name not in new})
    if new:
        _begin_at_zero(network, layers)
    return new


def _begin_at_zero(network: nn.Module, layers: tuple[str, ...]) -> None:
    """Let each layer of the head give logits of 0."""
    for name in layers:
        parts = [part for part in network.get_submodule(name).modules() if isinstance(part, (nn.Linear, nn.Conv2d))]
        for parameter in parts[-1].parameters():  # only the last of several: zeros before it would let no gradient by
            nn.init.zeros_(parameter)


def freeze_backbone(network: nn.Module) -> None:
    """Exempt all but the head from training."""
    layers = head_layers(network)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(in_head(name, layers))


def train_mode(model: nn.Module) -> None:
    """Set the model to training mode, but for what is frozen: its normalisations keep the statistics that they have."""
    model.train()
    for layer in model.modules():
        parameters = list(layer.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            layer.eval()


def _fetched(network: str) -> Path:
    """Fetch the weights of a network of timm from the hub, unless they were before."""
    known = from_timm.configuration(network.removeprefix(from_timm.PREFIX))
    if not known.hf_hub_id or known.custom_load:
        raise StageError(
            f"train.transfer.weights = hub: the hub has none of {network} in a form that can be read; choose a file, "
            "or another network"
        )
    from huggingface_hub import hf_hub_download, hf_hub_url  # only here: it takes half a second

    repository, _, revision = known.hf_hub_id.partition("@")
    file = known.hf_hub_filename or FILE
    try:
        return Path(hf_hub_download(repository, file, revision=revision or None, cache_dir=CACHE))
    except Exception as error:  # whichever of its own, of its HTTP client's and of the system's: none is a defect here
        url = hf_hub_url(repository, file, revision=revision or None)
        raise StageError(
            f"train.transfer.weights = hub: {url} could not be fetched ({str(error).partition(chr(10))[0]}). Where it "
            "can be, fetch it; then set train.transfer.weights to the path of the file, and train.transfer.sha256"
        ) from None


def _tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            loaded: Any = load(content)
        else:
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, AttributeError) as error:
        raise StageError(
            f"{path} is no whole file of weights alone; no code in it was run. What reads it says: "
            f"{str(error).partition(chr(10))[0]}"
        ) from None
    for key in ("state_dict", "model"):  # what trainings elsewhere put around it
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise StageError(f"{path} holds no state_dict: it should be tensors by name")
    bad = [name for name, tensor in loaded.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        raise StageError(
            f"{path} holds values that are no finite numbers, in {listed(bad, MOST)}: choose other weights"
        )
    return loaded


def _adapted(state_dict: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Bring weights of a network of timm to the form that this version of it and these images need."""
    known = getattr(network, "pretrained_cfg", None)
    if known is None:
        return state_dict
    from timm.models import adapt_input_conv

    convert: Callable[..., dict[str, Tensor]] | None
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    given = dict(convert(dict(state_dict), network)) if convert else dict(state_dict)
    first = known.get("first_conv") or ()
    for name in (first,) if isinstance(first, str) else first:
        layer, weight = network.get_submodule(name), given.get(f"{name}.weight")
        if isinstance(layer, nn.Conv2d) and weight is not None and weight.shape[1] != layer.in_channels:
            given[f"{name}.weight"] = adapt_input_conv(layer.in_channels, weight, base_chans=weight.shape[1])
    return given


def _counts(name: str) -> bool:
    """Tell whether it is the count of batches of a normalisation, which files of old versions of torch do not have."""
    return name.endswith(".num_batches_tracked")
