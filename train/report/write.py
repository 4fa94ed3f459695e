"""What a run leaves behind: checkpoint.pt, metrics.json, report.html, and what it says on stdout."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torchvision

from teachcam.collect.dataset import Sample
from teachcam.contract import TrainingInfo
from teachcam.files import write_atomic
from teachcam.processor import processor_name
from teachcam.train.calibration import expected_calibration_error
from teachcam.train.config import RunConfig
from teachcam.train.engine.context import Context
from teachcam.train.metrics import interval, score
from teachcam.train.model.checkpoint import Checkpoint, save_checkpoint
from teachcam.train.model.inference import InferenceModel, predict
from teachcam.train.report import summary as claims
from teachcam.train.report.html import write_report
from teachcam.train.report.result import TrainingResult


def write_results(options: RunConfig, evidence: TrainingResult, context: Context) -> list[str]:
    """Write them into `options.out`, whole or not at all, point runs/latest there; return what to say of it."""
    dataset, splits, outcome, validation = evidence.dataset, evidence.splits, evidence.outcome, evidence.validation
    by_frames = options.split == "frames"
    figures = _figures(outcome.probabilities, validation, dataset.labels, by_frames)
    trained_on = TrainingInfo(
        backbone=options.backbone,
        head=options.head,
        dataset=evidence.fingerprint,
        validation_accuracy=figures["accuracy"],
        validation_images=figures["frames"],
        optimistic=bool(splits[0].cut_labels) or by_frames,
        versions={
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "torchvision": str(torchvision.__version__),
        },
        processor=processor_name() if context.device.type == "cpu" else torch.cuda.get_device_name(context.device),
    )
    contract = replace(outcome.contract, trained_on=trained_on)
    network = outcome.network.cpu().eval()
    tested = None
    if evidence.test:
        probabilities = predict(InferenceModel(network, contract), dataset.examples(evidence.test).frames, contract)
        tested = _figures(probabilities, evidence.test, dataset.labels, by_frames)
    metrics = {
        "labels": list(dataset.labels),
        "backbone": options.backbone,
        "head": options.head,
        "strategy": outcome.strategy,
        "tried": outcome.tried,
        "options": options.to_json(),
        "weights": evidence.weights,
        "device": str(context.device),
        "processes": context.workers.count,
        "seed": options.seed,
        "frames": len(splits[0].train) + (len(splits[0].validation) if options.refit or options.folds else 0),
        "seconds": round(evidence.seconds, 2),
        "images_per_second": round(context.frames / context.seconds, 1) if context.seconds else None,
        "data_wait_fraction": round(context.waited / context.seconds, 3) if context.seconds else None,
        "skipped": dataset.skipped,
        "split": options.split,
        "folds": len(splits),
        "validation": figures,
        "validation_sessions": sorted({session for split in splits for session in split.validation_sessions}),
        "validation_learned_later": options.refit or len(splits) > 1,
        "test": tested,
        "cut_labels": list(splits[0].cut_labels),
        "temperature": contract.temperature,
        "unknown_threshold": contract.unknown_threshold,
        "mistakes": evidence.mistakes(20),
        "epochs": outcome.history,
    }
    others = set(validation)
    checkpoint = Checkpoint(
        network,
        contract,
        str(options.data.resolve()),
        [(item.label, dataset.name(item)) for item in validation],
        [(item.label, dataset.name(item)) for item in splits[0].train if item not in others],
    )
    save_checkpoint(options.out / "checkpoint.pt", checkpoint)
    write_atomic(options.out / "metrics.json", json.dumps(metrics, indent=1).encode())
    write_report(options.out / "report.html", metrics, evidence)
    _point_latest_at(options.out)

    right = outcome.probabilities.argmax(1) == [dataset.labels.index(item.label) for item in validation]
    lines = [*claims.after(right, splits, options.split), *([claims.worth(*evidence.worth)] if evidence.worth else [])]
    if tested:
        low, high = tested["interval"]
        sessions = "" if by_frames or options.test_list else f" of {len(tested['sessions'])} test sessions"
        lines.append(
            f"test: accuracy {tested['accuracy']:.3f} ({low:.2f} to {high:.2f}) on {tested['frames']} frames{sessions}"
        )
    speed = f", {metrics['images_per_second']:.0f} images a second" if metrics["images_per_second"] else ""
    report = options.out / "report.html"
    return [*lines, f"{options.out / 'checkpoint.pt'}, {metrics['seconds']} s{speed}; the report: {report}"]


def _figures(probabilities: np.ndarray, items: list[Sample], labels: tuple[str, ...], by_frames: bool) -> dict:
    class_ids = np.array([labels.index(item.label) for item in items], int)
    groups = [str(item.path) if by_frames else item.session for item in items]
    return {
        **score(probabilities, class_ids, labels),
        "interval": interval(probabilities.argmax(1) == class_ids, groups),
        "ece": expected_calibration_error(probabilities, class_ids) if items else None,
        "sessions": sorted({item.session for item in items}),
    }


def _point_latest_at(out: Path) -> None:
    """Make runs/latest a link to this run, in one step, so that there is always a latest one."""
    latest = Path("runs/latest")
    beside = latest.with_name(f".latest.{os.getpid()}")
    try:
        latest.parent.mkdir(exist_ok=True)
        beside.symlink_to(os.path.relpath(out.resolve(), latest.parent.resolve()), target_is_directory=True)
        beside.replace(latest)
    except OSError as error:
        print(f"runs/latest still points elsewhere ({error.strerror}): name the run's files", file=sys.stderr)
