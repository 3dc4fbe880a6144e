"""The loop as people write it in a notebook: torchvision's MNIST, ``ToTensor``, ``DataLoader``, default threads.

It evaluates less than the project does: validation after each epoch, the test images once at the end. It draws its own
random numbers, so its losses resemble the project's and do not equal them.
"""

import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torchvision
from common import DROPOUT, LEARNING_RATE, WIDTH, Epoch, Task, main
from torch import nn
from torch.utils.data import DataLoader, random_split
from torchvision import datasets, transforms


class MLP(nn.Module):
    """784-256-256-10, with dropout and BatchNorm if asked for."""

    def __init__(self, *, regularised: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(28 * 28, WIDTH)
        self.fc2 = nn.Linear(WIDTH, WIDTH)
        self.fc3 = nn.Linear(WIDTH, 10)
        self.norm1, self.norm2 = (nn.BatchNorm1d(WIDTH) if regularised else nn.Identity() for _ in range(2))
        self.dropout = nn.Dropout(DROPOUT) if regularised else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of images (batch, 1, 28, 28)."""
        x = x.view(x.size(0), -1)
        x = torch.relu(self.dropout(self.norm1(self.fc1(x))))
        x = torch.relu(self.dropout(self.norm2(self.fc2(x))))
        logits: torch.Tensor = self.fc3(x)
        return logits


def train(task: Task, options: Namespace) -> Iterator[Epoch | None]:
    """Train one model: see ``common.Train``."""
    torch.manual_seed(options.model)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for file in Path(str(task["folder"])).glob("*-ubyte"):
            (raw / file.name).symlink_to(file)
        training = datasets.MNIST(folder, train=True, transform=transforms.ToTensor())
        test = datasets.MNIST(folder, train=False, transform=transforms.ToTensor())
    training_part, validation_part = random_split(training, [48_000, 12_000])
    train_loader = DataLoader(training_part, batch_size=64, shuffle=True)
    val_loader = DataLoader(validation_part, batch_size=64, shuffle=True)
    test_loader = DataLoader(test, batch_size=64)
    model = MLP(regularised=options.regularised)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    yield None
    for epoch in range(options.epochs):
        model.train()
        losses = []
        for images, labels in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        evaluation = _evaluate(model, val_loader, "val")
        if epoch == options.epochs - 1:
            evaluation |= _evaluate(model, test_loader, "test")
        yield Epoch(np.array([losses]), evaluation)


@torch.no_grad()
def _evaluate(model: nn.Module, loader: DataLoader[tuple[torch.Tensor, ...]], name: str) -> dict[str, list[float]]:
    model.eval()
    criterion = nn.CrossEntropyLoss()
    loss, correct, n = 0.0, 0, 0
    for images, labels in loader:
        logits = model(images)
        loss += criterion(logits, labels).item() * labels.size(0)
        correct += int((logits.argmax(dim=1) == labels).sum().item())
        n += labels.size(0)
    return {f"{name}_loss": [loss / n], f"{name}_accuracy": [correct / n]}


if __name__ == "__main__":
    main(train, ["notebook"], {"torch": torch.__version__, "torchvision": torchvision.__version__})
