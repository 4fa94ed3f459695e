"""The strategies that train by gradients on some images, and then on all: `head`, `partial` and others.

Unless cross-validation is asked for, there is one fold: the validation set.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from teachcam.calibration import calibrate
from teachcam.collect.dataset import Sample
from teachcam.collect.split import Split, folds_by_scene, split_at_random, split_by_scene
from teachcam.errors import TrainingError
from teachcam.train.augment.augmentation import Augmentation
from teachcam.train.augment.views import AugmentedViews
from teachcam.train.config.train_config import TrainConfig
from teachcam.train.engine.context import Context
from teachcam.train.engine.features import extract_features
from teachcam.train.engine.head import fit_head
from teachcam.train.engine.result import Result
from teachcam.train.engine.strategies.base import Strategy, make_trial
from teachcam.train.engine.trainer import Trainer
from teachcam.train.engine.training_data import TrainingData
from teachcam.train.model.backbones import Network

if TYPE_CHECKING:
    from teachcam.train.run_config import RunConfig

NUM_VIEWS = 2  # augmented copies of each image, for a head that is trained before the other layers
HEAD = TrainConfig(
    epochs=30,
    lr=1e-3,
    weight_decay=1.0,
    schedule="none",
    batch_size=64,
    dropout=0.0,
    averaged=False,
    max_gradient_norm=float("inf"),
)


@dataclass(frozen=True)
class Trained:
    """A network that was trained on a part of the images."""

    network: Network
    history: list[dict]  # metrics of each epoch
    augmentation: Augmentation | None  # of the images, if they were augmented


class Gradient(Strategy):
    """Trains layers of the backbone, and the head.

    It trains on augmented images; or with `on_features` the head alone, on the features of the images as they are, for
    which the backbone runs once for each image.
    """

    settings: TrainConfig

    def __init__(self, name: str, settings: TrainConfig, on_features: bool = False):
        self.name, self.settings, self.on_features = name, settings, on_features
        self.weights = "none" if settings.scratch else None
        self.unused = ("backbone_lr", "trainable_fraction", "progressive_resize") if on_features else ()

    def settings_with(self, overrides: dict, seed: int) -> TrainConfig:
        """Return the settings with these overrides. Where all layers have one learning rate, they keep one."""
        if "lr" in overrides and self.settings.lr == self.settings.backbone_lr:
            overrides = {"backbone_lr": overrides["lr"], **overrides}
        return replace(self.settings, seed=seed, **overrides)

    def folds(self, samples: list[Sample], config: RunConfig) -> list[Split]:
        """Return one fold, or as many as `--folds` says."""
        if config.split == "frames":
            return [split_at_random(samples, config.validation_fraction, config.seed)]
        if not config.folds:
            return [split_by_scene(samples, config.validation_fraction, config.seed)]
        folds = folds_by_scene(samples, config.folds, config.seed)
        if len(folds) < 2:
            raise TrainingError(
                f"--folds {config.folds}: too few scenes for cross-validation; record each label in more places, or "
                "leave --folds out"
            )
        return folds

    def fit(self, data: TrainingData, folds: list[Split], context: Context) -> Result:
        """Train without each fold, then once more on all samples, unless that is left out."""
        config, several = data.config, len(folds) > 1
        trained, logits, trials = [], [], []
        for number, fold in enumerate(folds, 1):
            started = time.monotonic()
            name = f"fold{number}-{self.name}" if several else self.name
            trained.append(self.train(data, fold, config.training, context, name))
            logits.append(self.logits(data, trained[-1].network, fold.validation, context))
            correct = logits[-1].argmax(1) == data.examples(fold.validation).class_ids.numpy()
            trials.append(make_trial(self.name, correct, time.monotonic() - started))
        result = Result(
            data,
            folds,
            trained[0].network,
            data.contract,
            self.name,
            np.concatenate(logits),
            trained[0].history,
            trials,
        )
        has_outliers = all(one.augmentation is not None and one.augmentation.has_outliers for one in trained)
        class_ids = result.class_ids(result.validation)
        contract, _ = calibrate(data.contract, result.logits, class_ids, has_outliers)
        head_accuracies = self._compare_splits(data, folds[0], context) if config.split == "frames" else None
        result = replace(result, contract=contract, head_accuracies=head_accuracies)
        if not (config.refit or several) or not folds[0].validation:
            return result
        everything = Split(folds[0].train + folds[0].validation, [])
        augmentation = trained[0].augmentation
        if augmentation is not None:
            augmentation += data.augmentation(folds[0].validation)
        settings = settings_for_refit(config.training, [one.history for one in trained])
        refitted = self.train(data, everything, settings, context, f"refit-{self.name}", augmentation)
        if several:
            return replace(result, network=refitted.network, history=refitted.history)
        return replace(result, network=refitted.network, validated_network=result.network)

    def train(
        self,
        data: TrainingData,
        split: Split,
        settings: TrainConfig,
        context: Context,
        name: str,
        augmentation: Augmentation | None = None,
    ) -> Trained:
        """Train a copy of the network.

        Args:
            data: Network to start from, and the images.
            split: Samples to train on, and samples to validate on after each epoch.
            settings: Settings of the training.
            context: Surroundings of the training.
            name: Name of the training, in progress bars and saved states.
            augmentation: Augmentation of the samples to train on, if it is known.
        """
        if self.on_features:
            return Trained(*train_head(data, split, settings, context, name), None)
        network = copy.deepcopy(data.network)
        augmentation = augmentation or data.augmentation(split.train)
        train, validation = data.examples(split.train), data.examples(split.validation)
        if settings.head_first and not context.state.has(name):
            # A head that relies on the background would give the other layers wrong gradients.
            views = [AugmentedViews(augmentation, settings.seed, number) for number in range(NUM_VIEWS)]
            features = torch.cat([extract_features(network, one, data.contract, context) for one in views])
            class_ids = train.class_ids.to(context.device)
            parts = (features, class_ids.repeat(NUM_VIEWS)), (features[:0], class_ids[:0])
            fit_head(network, data.contract, *parts, replace(HEAD, seed=settings.seed))
        trainer = Trainer(network, data.contract, train, validation, augmentation, settings, context)
        return Trained(network, trainer.fit(name), augmentation)

    @torch.no_grad()
    def logits(self, data: TrainingData, network: Network, samples: list[Sample], context: Context) -> np.ndarray:
        """Return the logits of samples, float32 [n, num_classes]."""
        if self.on_features:
            features = data.features(samples, context)
        else:
            features = extract_features(network, data.examples(samples).images, data.contract, context)
        return network.head.eval()(features).float().cpu().numpy()

    def _compare_splits(self, data: TrainingData, at_random: Split, context: Context) -> list[float] | None:
        """Return the accuracy of a head alone on random validation images, and on whole validation scenes.

        None if no scene can be spared for validation.
        """
        seed = data.config.seed
        by_scene = split_by_scene(at_random.train + at_random.validation, seed=seed)
        if not by_scene.validation_scenes:
            return None
        settings = replace(HEAD, seed=seed)
        histories = [train_head(data, split, settings, context)[1] for split in (at_random, by_scene)]
        return [min(history, key=lambda one: one["validation_loss"])["validation_accuracy"] for history in histories]


def train_head(
    data: TrainingData, split: Split, settings: TrainConfig, context: Context, name: str | None = None
) -> tuple[Network, list[dict]]:
    """Train the head of a copy of the network. Returns it, and the metrics of each epoch. Only a name is shown."""
    network = copy.deepcopy(data.network)
    train, validation = (
        (data.features(samples, context), data.examples(samples).class_ids.to(context.device))
        for samples in (split.train, split.validation)
    )
    progress = context.progress if name else None
    return network, fit_head(network, data.contract, train, validation, settings, progress, name or "head")


def settings_for_refit(settings: TrainConfig, histories: list[list[dict]]) -> TrainConfig:
    """Return the settings to train with on all images, where no validation images are left to stop early by.

    Without patience the whole schedule is run: to stop at the best epoch costs three points of accuracy in new rooms,
    because the learning rate is still high then. With patience, it stops after as many epochs as were best before.
    """
    if settings.patience is None:
        return settings
    best = [min(history, key=lambda metrics: metrics["validation_loss"])["epoch"] for history in histories]
    return replace(settings, stop_after=int(np.median(best)), patience=None)


SIZES = (160 / 224, 192 / 224, 1.0, 1.0)  # the first epochs cost half as much and teach as much
# A lower learning rate in the backbone than in the head (discriminative rates, ULMFiT 2018).
LAYERS = TrainConfig(epochs=8, lr=3e-3, backbone_lr=3e-4, trainable_fraction=1.0, head_first=True)
ONE_RATE = TrainConfig(epochs=8, lr=5e-4, backbone_lr=5e-4, trainable_fraction=1.0)
# The first layers detect edges and textures, and keep their ImageNet weights.
PARTIAL = replace(LAYERS, backbone_lr=5e-4, trainable_fraction=0.72, progressive_resize=SIZES)
GRADIENT_STRATEGIES: tuple[Gradient, ...] = (
    Gradient("head", HEAD, on_features=True),
    Gradient("partial", PARTIAL),
    Gradient("differential", replace(LAYERS, progressive_resize=SIZES)),
    Gradient("full", replace(ONE_RATE, progressive_resize=SIZES)),
    Gradient("gradual", replace(LAYERS, gradual=True)),
    Gradient("scratch", replace(ONE_RATE, epochs=30, lr=1e-3, backbone_lr=1e-3, scratch=True)),
)
