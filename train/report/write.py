"""Write the files of a run: checkpoint.pt, metrics.json and report.html."""

from __future__ import annotations

import logging
import platform
from dataclasses import replace
from pathlib import Path

import torch
import torchvision

from teachcam.collect.dataset import Sample
from teachcam.contract import Contract, TrainingInfo
from teachcam.files import write_atomic
from teachcam.processor import processor_name
from teachcam.runs import set_latest_run
from teachcam.train.config.run_config import RunConfig
from teachcam.train.engine.context import Context
from teachcam.train.metrics import Evaluation, Metrics, Predictions, evaluate
from teachcam.train.model.checkpoint import Checkpoint, save_checkpoint
from teachcam.train.model.inference import InferenceModel, predict
from teachcam.train.report.html import write_report
from teachcam.train.report.result import TrainingResult
from teachcam.train.report.summary import describe_results

logger = logging.getLogger(__name__)

MAX_MISTAKES = 20  # in metrics.json


def write_results(out: Path, config: RunConfig, result: TrainingResult, context: Context) -> list[str]:
    """Write the files of a run into the folder `out`, each whole or not at all, and let runs/latest point there.

    Returns:
        Lines for the user: the accuracy, what was written, and how long the training took.
    """
    validation = _evaluate(config, result, result.predictions, result.validation)
    contract = replace(result.outcome.contract, trained_on=_training_info(config, result, validation, context.device))
    result.outcome.network.cpu().eval()
    metrics = _metrics(config, result, contract, validation, context)
    checkpoint_file, report_file = out / "checkpoint.pt", out / "report.html"
    save_checkpoint(checkpoint_file, _checkpoint(config, result, contract))
    write_atomic(out / "metrics.json", metrics.to_json().encode())
    write_report(report_file, metrics, result)
    try:
        set_latest_run(out)
    except OSError as error:
        logger.warning("runs/latest could not be changed (%s): name the files in %s", error.strerror, out)
    speed = f", {metrics.images_per_second:.0f} images a second" if metrics.images_per_second else ""
    files = f"{checkpoint_file}, {metrics.seconds} s{speed}; the report: {report_file}"
    return [*describe_results(result, metrics), *result.outcome.notes, files]


def _evaluate(config: RunConfig, result: TrainingResult, predictions: Predictions, samples: list[Sample]) -> Evaluation:
    scenes = [sample.scene for sample in samples]
    each_alone = [str(sample.path) for sample in samples] if config.split == "frames" else None
    return evaluate(predictions, result.dataset.labels, scenes, each_alone)


def _training_info(
    config: RunConfig, result: TrainingResult, validation: Evaluation, device: torch.device
) -> TrainingInfo:
    return TrainingInfo(
        backbone=config.backbone,
        head=result.outcome.network.head_kind,
        dataset=result.fingerprint,
        validation_accuracy=validation.accuracy,
        validation_images=validation.num_images,
        trained_on_validation=_trained_on_validation(config, result),
        optimistic=bool(result.splits[0].labels_split_by_time) or config.split == "frames",
        versions={
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "torchvision": str(torchvision.__version__),
        },
        processor=processor_name() if device.type == "cpu" else torch.cuda.get_device_name(device),
    )


def _trained_on_validation(config: RunConfig, result: TrainingResult) -> bool:
    """Return whether the final network was trained on all images, after the accuracy was measured."""
    return config.refit or len(result.splits) > 1


def _test(config: RunConfig, result: TrainingResult, contract: Contract) -> Evaluation | None:
    """Evaluate the final network on the test samples, if there are any."""
    if not result.test:
        return None
    images = result.dataset.examples(result.test).images
    probabilities = predict(InferenceModel(result.outcome.network, contract), images, contract)
    return _evaluate(config, result, Predictions(probabilities, result.class_ids(result.test)), result.test)


def _metrics(
    config: RunConfig, result: TrainingResult, contract: Contract, validation: Evaluation, context: Context
) -> Metrics:
    outcome, splits, seconds = result.outcome, result.splits, context.train_seconds
    trained_on_validation = _trained_on_validation(config, result)
    num_training_images = len(splits[0].train) + (len(splits[0].validation) if trained_on_validation else 0)
    return Metrics(
        labels=list(result.dataset.labels),
        backbone=config.backbone,
        head=outcome.network.head_kind,
        strategy=outcome.strategy,
        trials=outcome.trials,
        config=config.to_json(),
        weights=result.initial_weights,
        device=str(context.device),
        num_processes=context.processes.count,
        seed=config.seed,
        num_training_images=num_training_images,
        seconds=round(result.seconds, 2),
        images_per_second=round(context.num_images / seconds, 1) if seconds else None,
        data_wait_fraction=round(context.data_wait_seconds / seconds, 3) if seconds else None,
        skipped=result.dataset.skipped,
        left_out=result.dataset.left_out,
        split=config.split,
        num_folds=len(splits),
        validation=validation,
        validation_scenes=sorted({scene for split in splits for scene in split.validation_scenes}),
        trained_on_validation=trained_on_validation,
        test=_test(config, result, contract),
        labels_split_by_time=list(splits[0].labels_split_by_time),
        temperature=contract.temperature,
        unknown_threshold=contract.unknown_threshold,
        mistakes=[result.image_prediction(index) for index in result.wrong[:MAX_MISTAKES]],
        epochs=outcome.history,
    )


def _checkpoint(config: RunConfig, result: TrainingResult, contract: Contract) -> Checkpoint:
    def files(samples: list[Sample]) -> list[tuple[str, str]]:
        return [(sample.label, result.dataset.relative_path(sample)) for sample in samples]

    validation = set(result.validation)
    training = [sample for sample in result.splits[0].train if sample not in validation]
    data_folder = str(config.data.resolve())
    return Checkpoint(result.outcome.network, contract, data_folder, files(result.validation), files(training))
