"""Train copies of one network by the strategies of config.STRATEGIES, and evaluate them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from teachcam.calibration import calibrate
from teachcam.contract import Contract
from teachcam.train.augment.views import AugmentedViews
from teachcam.train.config.train_config import STRATEGIES, TrainConfig
from teachcam.train.data.dataset import Examples
from teachcam.train.engine.features import extract_features
from teachcam.train.engine.head import fit_head
from teachcam.train.engine.trainer import Trainer
from teachcam.train.engine.training_data import TrainingData
from teachcam.train.metrics import Predictions
from teachcam.train.model.backbones import Network

NUM_VIEWS = 2  # augmented copies of each image, for a head that is trained first


@dataclass(frozen=True)
class StrategyResult:
    """A trained network, and how it did on the validation images before it was trained on them too."""

    network: Network
    contract: Contract  # with the fitted temperature and threshold
    strategy: str
    logits: np.ndarray  # float32 [N, num_outputs], of the validation images
    probabilities: np.ndarray  # float64 [N, num_classes], of the validation images
    history: list[dict]  # metrics of each epoch
    trials: list[dict]  # for each strategy tried: its name, validation accuracy (or None) and seconds
    validated_network: Network | None = None  # the network whose logits these are; None for several folds
    notes: list[str] = field(default_factory=list)  # lines about what was not done, for the user

    def accuracy(self, validation: Examples) -> float | None:
        """Return the accuracy on the validation images, 0 to 1, or None if there are none."""
        return Predictions(self.probabilities, validation.class_ids.numpy()).accuracy


def make_trial(strategy: str, correct: np.ndarray, seconds: float) -> dict:
    """Return an entry of `StrategyResult.trials`.

    Args:
        strategy: its name.
        correct: bool [N], whether each validation image was classified correctly.
        seconds: that the training took.
    """
    accuracy = float(correct.mean()) if len(correct) else None
    return {"strategy": strategy, "validation_accuracy": accuracy, "seconds": seconds}


class StrategyTrainer:
    """Trains copies of one network, each by one strategy, on the same images."""

    def __init__(self, data: TrainingData, seed: int = 0, name: str = ""):
        """Store what to train on.

        Args:
            data: the network to start from, and the images.
            seed: of all random numbers.
            name: begins the names of the trainings in progress bars and saved states.
        """
        self.data, self.seed, self.name = data, seed, name
        self.network, self.contract, self.context = data.network, data.contract, data.context

    def config(self, strategy: str, overrides: dict | None = None) -> TrainConfig:
        """Return a strategy's settings, with these overrides."""
        return replace(STRATEGIES[strategy], seed=self.seed, **(overrides or {}))

    def fit(self, strategy: str, overrides: dict | None = None) -> tuple[Network, list[dict]]:
        """Train a copy of the network by one strategy.

        Args:
            strategy: a key of STRATEGIES.
            overrides: settings that replace the strategy's.

        Returns:
            The trained network, and the metrics of each epoch.
        """
        config, network, name = self.config(strategy, overrides), copy.deepcopy(self.network), self.name + strategy
        if strategy == "head":
            return network, self._fit_head_only(network, config, name)
        if config.head_first and not self.context.state.has(name):
            self._fit_head_on_augmented(network)
        data = self.data
        trainer = Trainer(network, self.contract, data.train, data.validation, data.augmentation, config, self.context)
        return network, trainer.fit(name)

    def evaluate(self, network: Network, strategy: str, history: list[dict]) -> StrategyResult:
        """Return how a network that was trained by `strategy` does on the validation images, and calibrate it."""
        if strategy == "head":  # its backbone is the original one, whose features are known
            features = self.data.features[len(self.data.train) :]
        else:
            features = extract_features(network, self.data.validation.images, self.contract, self.context)
        with torch.no_grad():
            logits = network.head.eval()(features).float().cpu().numpy()
        has_outliers = strategy != "head" and self.data.augmentation.has_outliers
        class_ids = self.data.validation.class_ids.numpy()
        contract, probabilities = calibrate(self.contract, logits, class_ids, has_outliers)
        return StrategyResult(network, contract, strategy, logits, probabilities, history, [])

    def on_all_images(self) -> StrategyTrainer:
        """Return a trainer that trains on the validation images too, and has none to validate on."""
        trainer = copy.copy(self)
        trainer.name, trainer.data = "refit-", self.data.merged()
        return trainer

    def head_accuracy(self, train: list[bool], validation: list[bool]) -> float:
        """Return the validation accuracy of a head alone for another split of the same images.

        Args:
            train: which images to train on, in the order training images, validation images.
            validation: which images to validate on.
        """
        class_ids = (self.data.train + self.data.validation).class_ids.to(self.context.device)
        learned, held_out = (
            (self.data.features[mask], class_ids[mask]) for mask in (torch.tensor(train), torch.tensor(validation))
        )
        history = fit_head(copy.deepcopy(self.network), self.contract, learned, held_out, self.config("head"))
        return min(history, key=lambda metrics: metrics["validation_loss"])["validation_accuracy"]

    def _fit_head_only(self, network: Network, config: TrainConfig, name: str) -> list[dict]:
        """Train the head on the features of the images as they are."""
        train, validation, device = self.data.train, self.data.validation, self.context.device
        features, validation_features = self.data.features.split([len(train), len(validation)])
        parts = (features, train.class_ids.to(device)), (validation_features, validation.class_ids.to(device))
        return fit_head(network, self.contract, *parts, config, self.context.progress, name)

    def _fit_head_on_augmented(self, network: Network) -> None:
        """Train the head before the other layers, on augmented images as they will be.

        A head that relies on the background would give the other layers wrong gradients.
        """
        views = [AugmentedViews(self.data.augmentation, self.seed, number) for number in range(NUM_VIEWS)]
        features = torch.cat([extract_features(network, one, self.contract, self.context) for one in views])
        class_ids = self.data.train.class_ids.to(self.context.device)
        parts = (features, class_ids.repeat(NUM_VIEWS)), (features[:0], class_ids[:0])
        fit_head(network, self.contract, *parts, self.config("head"))
