"""What every training strategy has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from teachcam.collect.dataset import Sample
from teachcam.collect.split import Split
from teachcam.train.config.options import options_of
from teachcam.train.config.train_config import TrainConfig
from teachcam.train.engine.context import Context
from teachcam.train.engine.result import Result
from teachcam.train.engine.training_data import TrainingData

if TYPE_CHECKING:
    from teachcam.train.run_config import RunConfig


VALIDATION_FRACTION = 0.2  # of the images, by default


class Strategy:
    """A way to train: which layers, how fast, and on which images it is evaluated.

    Attributes:
        name: Its name on the command line.
        settings: Its settings, which options replace. None if it has none.
        unused: Settings that it does not use.
        head: Kind of the head. None: as the options say.
        weights: Weights that it starts from. None: as the options say.
        evaluates_all: Whether it is evaluated on every scene, with models that never saw it.
        needed_memory: Bytes of memory that it takes once the images are read, if that may be too much: for 1,230
            images, EfficientNet-Lite0, on a CPU.
    """

    name: str
    settings: TrainConfig | None = None
    unused: tuple[str, ...] = ()
    head: str | None = None
    weights: str | None = None
    evaluates_all = False
    needed_memory = 0.0

    def refuses(self, config: RunConfig) -> str | None:
        """Return why the strategy can't be used with these options, in one line, or None."""
        for option in options_of(TrainConfig):
            if option.name in config.overrides and (self.settings is None or option.name in self.unused):
                return f"{option.flag}: the strategy {self.name} has no such setting"
        return None

    def settings_with(self, overrides: dict, seed: int) -> TrainConfig | None:
        """Return the settings with these overrides and this seed. Raises TrainingError for a value that can't be."""
        return self.settings and replace(self.settings, seed=seed, **overrides)

    def folds(self, samples: list[Sample], config: RunConfig) -> list[Split]:
        """Return the folds to evaluate on, one or more. Raises TrainingError if there are too few scenes.

        Args:
            samples: Everything that may be learned.
            config: Options of the run.
        """
        raise NotImplementedError

    def fit(self, data: TrainingData, folds: list[Split], context: Context) -> Result:
        """Train without the validation samples of each fold, to evaluate on those, and then on all samples.

        Args:
            data: Network to start from, and the images. The network may be changed.
            folds: Folds of the samples, as `folds` returns them.
            context: Surroundings of the training.
        """
        raise NotImplementedError


def make_trial(strategy: str, correct: np.ndarray, seconds: float) -> dict:
    """Return an entry of `Result.trials`.

    Args:
        strategy: Name of the strategy.
        correct: Whether each validation image was classified correctly, bool [N].
        seconds: Duration of the training.
    """
    accuracy = float(correct.mean()) if len(correct) else None
    return {"strategy": strategy, "validation_accuracy": accuracy, "seconds": seconds}
