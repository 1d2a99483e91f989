"""Train a classifier of handwritten digits, print its progress, and keep the model and its figures.

Reads EPOCHS and WIDTH (of the hidden layer). Writes out/model.joblib and out/metrics.json. Fails below
ACCURACY_MIN on the test set.
"""

import json
import os
import time
from pathlib import Path

import joblib
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix, log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

EPOCHS = int(os.environ.get("EPOCHS", "20"))
WIDTH = int(os.environ.get("WIDTH", "64"))
ACCURACY_MIN = 0.95
SEED = 7
OUT = Path("out")


def main() -> None:
    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=0.25, random_state=SEED, stratify=labels
    )
    print(f"{len(train_x)} images to learn from, {len(test_x)} to be tested on", flush=True)

    scaler = StandardScaler().fit(train_x)
    network = MLPClassifier(hidden_layer_sizes=(WIDTH,), learning_rate_init=0.005, random_state=SEED)
    scaled_train, scaled_test = scaler.transform(train_x), scaler.transform(test_x)
    begin = time.perf_counter()
    for epoch in range(1, EPOCHS + 1):
        network.partial_fit(scaled_train, train_y, classes=range(10))
        loss = log_loss(test_y, network.predict_proba(scaled_test))
        accuracy = network.score(scaled_test, test_y)
        print(f"epoch {epoch:>3}/{EPOCHS}  loss {loss:.4f}  test accuracy {accuracy:.2%}", flush=True)
    seconds = time.perf_counter() - begin

    OUT.mkdir(exist_ok=True)
    joblib.dump(make_pipeline(scaler, network), OUT / "model.joblib")
    metrics = {
        "test_accuracy": accuracy,
        "test_loss": loss,
        "epochs": EPOCHS,
        "train_seconds": round(seconds, 3),
        "confusion": confusion_matrix(test_y, network.predict(scaled_test)).tolist(),
    }
    (OUT / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"test accuracy {accuracy:.2%} after {seconds:.1f} s", flush=True)
    assert accuracy >= ACCURACY_MIN, f"expected at least {ACCURACY_MIN:.0%}"


if __name__ == "__main__":
    main()
