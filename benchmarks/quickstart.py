"""The PyTorch quickstart as a plain script, written afresh: what the whole pipeline is timed against.

The same network, optimiser, batch size and epochs, on as many training images as the pipeline trains on.

Reads:  data/raw/, as torchvision lays it out
Writes: model.pth, in the folder that is given
Run:    python -m benchmarks.quickstart data/raw /tmp
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets
from torchvision.transforms import ToTensor

TRAINING_IMAGES = 54_000
EPOCHS = 5


class NeuralNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.linear_relu_stack = nn.Sequential(
            nn.Linear(28 * 28, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear_relu_stack(self.flatten(x))
        return logits


root, folder = sys.argv[1:]
training_data = Subset(datasets.FashionMNIST(root, train=True, transform=ToTensor()), range(TRAINING_IMAGES))
test_data = datasets.FashionMNIST(root, train=False, transform=ToTensor())
train_dataloader = DataLoader(training_data, batch_size=64, shuffle=True)
test_dataloader = DataLoader(test_data, batch_size=64)


model = NeuralNetwork()
loss_fn = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)


def train() -> None:
    model.train()
    for batch, (x, y) in enumerate(train_dataloader):
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if batch % 100 == 0:
            print(f"loss: {loss.item():>7f}  [{(batch + 1) * len(x):>5d}/{TRAINING_IMAGES:>5d}]")


def test() -> None:
    model.eval()
    test_loss, correct = 0.0, 0
    with torch.no_grad():
        for x, y in test_dataloader:
            logits = model(x)
            test_loss += loss_fn(logits, y).item()
            correct += int((logits.argmax(1) == y).sum())
    print(f"Accuracy: {correct / len(test_data):.1%}, Avg loss: {test_loss / len(test_dataloader):>8f}")


for epoch in range(EPOCHS):
    print(f"Epoch {epoch + 1}")
    train()
    test()
torch.save(model.state_dict(), Path(folder) / "model.pth")
