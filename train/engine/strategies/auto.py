"""The strategy `auto`: a head in closed form, then fine-tuning if time and memory allow. It keeps the better."""

from __future__ import annotations

from dataclasses import replace

from teachcam.collect.split import Split
from teachcam.processor import share_of_memory
from teachcam.train.engine.context import Context
from teachcam.train.engine.result import Result
from teachcam.train.engine.strategies.finetune import TOO_FEW_SCENES, FineTune, FineTuner
from teachcam.train.engine.strategies.ridge import RidgeTrainer
from teachcam.train.engine.training_data import TrainingData
from teachcam.train.model.stages import activation_bytes

# For the activations of the images to fine-tune on. As much again is needed to train on them.
MEMORY_SHARE, MAX_ACTIVATION_BYTES = 0.3, 2**32
TO_DO_IT = f"to do it: teachcam train --strategy {FineTune.name}"


class Auto(FineTune):
    """Fits a head in closed form, fine-tunes, and keeps the better of both."""

    name = "auto"

    def fit(self, data: TrainingData, folds: list[Split], context: Context) -> Result:
        """Fit the head, and fine-tune as long as the budget allows."""
        settings, stages = data.config.training, self.stages(data)
        num_bytes = activation_bytes(stages, data.contract.input_size) * len(data.samples)
        max_bytes = share_of_memory(MEMORY_SHARE, MAX_ACTIVATION_BYTES)
        fits = num_bytes <= max_bytes
        trainer = RidgeTrainer(data, folds, context, stages if fits else None)
        ridge = trainer.fit()
        if not fits:
            note = (
                f"fine-tuning was not tried: the activations of {len(data.samples)} images take {num_bytes / 1e9:.1f} "
                f"GB of memory, and {max_bytes / 1e9:.1f} GB may be used here; {TO_DO_IT}"
            )
            return replace(ridge, notes=[note])
        few_folds = self.few_folds(data, folds)
        if not few_folds:
            return replace(ridge, notes=[f"fine-tuning was not tried: {TOO_FEW_SCENES}"])
        tuner, notes = FineTuner(trainer, few_folds, settings, context), []
        left = max(0.0, data.config.budget - context.state.cached("ridge-seconds", lambda: ridge.trials[0]["seconds"]))
        expected = context.state.cached("finetune-seconds", tuner.expected_seconds)
        epochs = int(settings.num_epochs * left / expected)
        if epochs < settings.num_epochs:
            done = f"fine-tuned for {epochs} of {settings.num_epochs} epochs" if epochs else "fine-tuning was not tried"
            note = f"{done}: it takes about {expected:.0f} s, and {left:.0f} s of --budget were left; {TO_DO_IT}"
            notes = [note]
            if not epochs:
                return replace(ridge, notes=notes)
            share = epochs / settings.num_epochs  # in a few epochs, the full learning rates do harm
            lower = {"lr": share * settings.lr, "backbone_lr": share * settings.backbone_lr}
            shorter = replace(settings, **{**lower, **data.config.overrides, "epochs": epochs})
            tuner = FineTuner(trainer, few_folds, shorter, context)
        tuned, ridge_accuracy = tuner.fit()
        trials = ridge.trials + tuned.trials
        if (accuracy := tuned.trials[0]["validation_accuracy"]) < ridge_accuracy:
            note = (
                f"fine-tuning was tried and dropped: {accuracy:.3f} accurate in scenes it never saw, where the head "
                f"alone is {ridge_accuracy:.3f}"
            )
            return replace(ridge, trials=trials, notes=[note])
        return replace(tuned, trials=trials, notes=notes)
