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
from teachcam.train.engine.context import Context
from teachcam.train.engine.result import Result
from teachcam.train.metrics import Evaluation, Metrics, Predictions, evaluate
from teachcam.train.model.checkpoint import Checkpoint, save_checkpoint
from teachcam.train.model.inference import InferenceModel, predict
from teachcam.train.report.html import write_report
from teachcam.train.report.summary import describe_results

logger = logging.getLogger(__name__)

MAX_MISTAKES = 20  # in metrics.json


def write_results(out: Path, result: Result, context: Context, seconds: float) -> list[str]:
    """Write the files of a run into its folder, each whole or not at all, and let runs/latest point there.

    Args:
        out: Folder of the run.
        result: Result of the run.
        context: Surroundings of the training.
        seconds: Duration of the training.

    Returns:
        Lines for the user: the accuracy, what was written, and how long the training took.
    """
    config, network = result.data.config, result.network.cpu().eval()
    validation = _evaluate(result, result.predictions, result.validation)
    contract = replace(result.contract, trained_on=_training_info(result, validation, context.device))
    metrics = _metrics(result, contract, validation, context, seconds)
    checkpoint_file, report_file = out / "checkpoint.pt", out / "report.html"
    trained_on, in_validation = result.folds[0].train, set(result.validation)
    training_files = _files(result, [sample for sample in trained_on if sample not in in_validation])
    data_folder, validation_files = str(config.data.resolve()), _files(result, result.validation)
    save_checkpoint(checkpoint_file, Checkpoint(network, contract, data_folder, validation_files, training_files))
    write_atomic(out / "metrics.json", metrics.to_json().encode())
    write_report(report_file, metrics, result)
    try:
        set_latest_run(out)
    except OSError as error:
        logger.warning("runs/latest could not be changed (%s): name the files in %s", error.strerror, out)
    speed = f", {metrics.images_per_second:.0f} images a second" if metrics.images_per_second else ""
    files = f"{checkpoint_file}, {metrics.seconds} s{speed}; the report: {report_file}"
    return [*describe_results(result, metrics), *result.notes, files]


def _files(result: Result, samples: list[Sample]) -> list[tuple[str, str]]:
    return [(sample.label, result.data.dataset.relative_path(sample)) for sample in samples]


def _evaluate(result: Result, predictions: Predictions, samples: list[Sample]) -> Evaluation:
    scenes, by_frames = [sample.scene for sample in samples], result.data.config.split == "frames"
    each_alone = [str(sample.path) for sample in samples] if by_frames else None
    return evaluate(predictions, result.contract.labels, scenes, each_alone)


def _training_info(result: Result, validation: Evaluation, device: torch.device) -> TrainingInfo:
    config = result.data.config
    return TrainingInfo(
        backbone=config.backbone,
        head=result.network.head_kind,
        dataset=result.data.dataset.fingerprint(),
        validation_accuracy=validation.accuracy,
        validation_images=validation.num_images,
        trained_on_validation=_trained_on_validation(result),
        optimistic=bool(result.folds[0].labels_split_by_time) or config.split == "frames",
        versions={
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "torchvision": str(torchvision.__version__),
        },
        processor=processor_name() if device.type == "cpu" else torch.cuda.get_device_name(device),
    )


def _trained_on_validation(result: Result) -> bool:
    """Return whether the final network was trained on all images, after the accuracy was measured."""
    return result.data.config.refit or len(result.folds) > 1


def _test(result: Result, contract: Contract) -> Evaluation | None:
    """Evaluate the final network on the test samples, if there are any."""
    test = result.data.test
    if not test:
        return None
    images = result.data.examples(test).images
    probabilities = predict(InferenceModel(result.network, contract), images, contract)
    return _evaluate(result, Predictions(probabilities, result.class_ids(test)), test)


def _metrics(result: Result, contract: Contract, validation: Evaluation, context: Context, seconds: float) -> Metrics:
    data, config, folds = result.data, result.data.config, result.folds
    trained_on_validation, train_seconds = _trained_on_validation(result), context.train_seconds
    return Metrics(
        labels=list(contract.labels),
        backbone=config.backbone,
        head=result.network.head_kind,
        strategy=result.strategy,
        trials=result.trials,
        config=config.to_json(),
        weights=data.initial_weights,
        device=str(context.device),
        num_processes=context.processes.count,
        seed=config.seed,
        num_training_images=len(folds[0].train) + (len(folds[0].validation) if trained_on_validation else 0),
        seconds=round(seconds, 2),
        images_per_second=round(context.num_images / train_seconds, 1) if train_seconds else None,
        data_wait_fraction=round(context.data_wait_seconds / train_seconds, 3) if train_seconds else None,
        skipped=data.dataset.skipped,
        left_out=data.dataset.left_out,
        split=config.split,
        num_folds=len(folds),
        validation=validation,
        validation_scenes=sorted({scene for fold in folds for scene in fold.validation_scenes}),
        trained_on_validation=trained_on_validation,
        test=_test(result, contract),
        labels_split_by_time=list(folds[0].labels_split_by_time),
        temperature=contract.temperature,
        unknown_threshold=contract.unknown_threshold,
        mistakes=[result.image_prediction(index) for index in result.wrong[:MAX_MISTAKES]],
        epochs=result.history,
    )
