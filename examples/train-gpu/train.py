"""Train a convolutional network on handwritten digits on a GPU, print its progress, and keep its figures.

Reads EPOCHS, and DEVICE (cuda; cpu to try the program without a card). Writes out/model.pt and
out/metrics.json. Fails without a card, and below ACCURACY_MIN on the test set.
"""

import json
import os
import time
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

EPOCHS = int(os.environ.get("EPOCHS", "20"))
DEVICE = os.environ.get("DEVICE", "cuda")
ACCURACY_MIN = 0.95
BATCH = 64
SEED = 7
OUT = Path("out")


def main() -> None:
    card = describe()
    torch.manual_seed(SEED)
    train_x, test_x, train_y, test_y = data()
    network = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 10),
    ).to(DEVICE)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    begin = time.perf_counter()
    for epoch in range(1, EPOCHS + 1):
        for batch in torch.randperm(len(train_x), device=DEVICE).split(BATCH):
            loss = nn.functional.cross_entropy(network(train_x[batch]), train_y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            accuracy = (network(test_x).argmax(1) == test_y).float().mean().item()
        print(f"epoch {epoch:>3}/{EPOCHS}  loss {loss.item():.4f}  test accuracy {accuracy:.2%}", flush=True)
    seconds = time.perf_counter() - begin

    OUT.mkdir(exist_ok=True)
    torch.save(network.cpu().state_dict(), OUT / "model.pt")
    metrics = {"test_accuracy": accuracy, "epochs": EPOCHS, "train_seconds": round(seconds, 3), **card}
    (OUT / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"test accuracy {accuracy:.2%} after {seconds:.1f} s", flush=True)
    assert accuracy >= ACCURACY_MIN, f"expected at least {ACCURACY_MIN:.0%}"


def describe() -> dict[str, str]:
    """The card, and for which ones this torch was built: they must meet, or the first kernel fails."""
    if DEVICE != "cuda":
        return {"device": DEVICE, "torch": torch.__version__}
    assert torch.cuda.is_available(), f"torch {torch.__version__} sees no card"
    major, minor = torch.cuda.get_device_capability()
    card = {
        "device": torch.cuda.get_device_name(),
        "capability": f"{major}.{minor}",
        "torch": torch.__version__,
        "built_for": " ".join(torch.cuda.get_arch_list()),
    }
    print(json.dumps(card), flush=True)
    return card


def data() -> list[torch.Tensor]:
    """The digits on the device: images to learn from and to be tested on, then their labels."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images, labels, test_size=0.25, random_state=SEED, stratify=labels)
    images_of = [torch.tensor(part, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16 for part in parts[:2]]
    return [part.to(DEVICE) for part in (*images_of, *(torch.tensor(part) for part in parts[2:]))]


if __name__ == "__main__":
    main()
