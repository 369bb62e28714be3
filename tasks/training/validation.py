"""What a network comes to on the validation split, by which the best of its epochs is chosen."""

import torch
from torch.nn.functional import cross_entropy

from tasks.model.batches import predict
from tasks.model.classifier import Classifier
from tasks.prepared import Split
from tasks.training.record import Validated

LARGEST = 1024  # batch: a larger one is not faster


def validate(
    classifier: Classifier, validation: Split, classes: int, epoch: int, device: torch.device, batch_size: int
) -> Validated:
    """Measure accuracy and average cross-entropy on the validation split, in evaluation mode and in float32."""
    logits, labels = predict(classifier, validation, batch_size, device), torch.from_numpy(validation.labels)
    predicted = logits.argmax(1)
    return Validated(
        epoch,
        (predicted == labels).float().mean().item(),
        cross_entropy(logits, labels).item(),
        torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes).tolist(),
    )
