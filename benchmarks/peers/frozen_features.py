"""scikit-learn: LogisticRegression on frozen features of EfficientNet-Lite0, which ONNX Runtime computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import job
import joblib
import numpy as np
import onnxruntime
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main() -> None:
    """Do the job."""
    job.run(train, loop)


def train(task: job.Job) -> dict:
    """Fit a scaler and a logistic regression. Its own accuracy is the mean of `cross_val_score`, as documented."""
    extract = _open_backbone(task)
    files = [(path, label) for label in task.labels for path in sorted(Path(task.train, label).iterdir())]
    features = np.stack([extract(cv2.imread(str(path))) for path, _ in files])
    names = [label for _, label in files]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(random_state=task.seed))
    claim = cross_val_score(classifier, features, names).mean()
    classifier.fit(features, names)
    file = Path(task.model) / "model.joblib"
    joblib.dump(classifier, file)
    columns = job.training_cost(task)
    order = [list(classifier.classes_).index(label) for label in task.labels]
    probabilities = classifier.predict_proba(np.stack([extract(cv2.imread(path)) for path in task.test]))
    return {
        **columns,
        "probabilities": probabilities[:, order].tolist(),
        "claim": float(claim),
        "model_mb": job.size_mb(file, Path(task.weights) / "efficientnet_lite0.onnx"),
    }


def loop(task: job.Job) -> Iterator[tuple[str, float]]:
    """Classify an image of 480x640 in memory."""
    extract, classifier = _open_backbone(task), joblib.load(Path(task.model) / "model.joblib")
    return job.repeat(lambda image: classifier.predict(extract(image)[None])[0], cv2.imread(task.image))


def _open_backbone(task: job.Job) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from an image, uint8 [H, W, 3] BGR, to its features, float32 [1280]."""
    session = onnxruntime.InferenceSession(
        Path(task.weights) / "efficientnet_lite0.onnx", providers=["CPUExecutionProvider"]
    )

    def extract(image: np.ndarray) -> np.ndarray:
        resized = cv2.cvtColor(cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
        return session.run(None, {"images": resized[None]})[0][0]

    return extract


if __name__ == "__main__":
    main()
