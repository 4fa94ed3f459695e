"""Train a classifier on data/<label>/ by transfer learning.

    python train/finetune.py
    python train/finetune.py --backbone resnet18 --strategy full --epochs 10 --out runs/my_run

Leaves checkpoint.pt, metrics.json and report.html in the run's folder; runs/latest points to the newest run.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
import torchvision
from tqdm import tqdm

from collect import cli
from collect.dataset import Item, UnreadableImage, fingerprint, guessed_sessions, read_image, read_items, write_atomic
from collect.resize import shrink
from train.backbones import INPUT_SIZE, Deployed, build_network, check_backbone
from train.checkpoint import Checkpoint, save_checkpoint
from train.contract import Contract
from train.evaluate import predict, score
from train.report import write_report
from train.split import Split, split_by_session
from train.strategies import EPOCHS, STRATEGIES, Lesson
from train.weights import TrainingError


def main(argv: list[str] | None = None) -> int:
    """Train, measure on held-out sessions, and leave a run behind."""
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"), help="the dataset's folder")
    parser.add_argument("--backbone", default="squeezenet1_1", help="squeezenet1_1, alexnet, resnet18")
    parser.add_argument("--strategy", choices=list(STRATEGIES), default="head", help="what is trained")
    parser.add_argument("--epochs", type=int, help=f"passes over the frames ({EPOCHS})")
    parser.add_argument("--out", type=Path, help="the run's folder (runs/<time>)")
    parser.add_argument("--weights", default="imagenet", help="imagenet, none, or a state dict's file")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    if options.epochs is not None and options.epochs < 1:
        parser.error("--epochs: at least 1")
    if not 0 <= options.seed < 2**32:
        parser.error("--seed: 0 to 4294967295")
    check_backbone(options.backbone)
    started = time.monotonic()
    device = _device(options.device)
    out = options.out or Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3]

    items, frames, skipped = _load(read_items(options.data))
    if not items:
        raise TrainingError(f"none of the {len(skipped)} images in {options.data} can be read")
    labels = tuple(sorted({item.label for item in items}))
    if len(labels) < 2:
        raise TrainingError(
            f"only one label in {options.data} ({', '.join(labels)}): record another with "
            "python collect/capture.py --label NAME"
        )
    split = split_by_session(items, seed=options.seed)
    _say_split(items, split)

    def lesson_part(part: list[Item]) -> tuple[list[np.ndarray], torch.Tensor]:
        class_ids = [labels.index(item.label) for item in part]
        return [frames[item.path] for item in part], torch.tensor(class_ids, dtype=torch.int64)

    dataset = fingerprint(items)
    out.mkdir(parents=True, exist_ok=True)  # now: a folder that can't be made is no surprise after training
    network, source = build_network(options.backbone, len(labels), options.weights, options.seed)
    contract = Contract(labels=labels, input_size=INPUT_SIZE)
    epochs = options.epochs or EPOCHS[options.strategy]
    with tqdm(total=epochs, desc=options.strategy, unit="epoch", disable=None) as bar:

        def on_epoch(line: dict) -> None:
            accuracy = line["held_out_accuracy"]
            bar.set_postfix_str(
                f"loss {line['loss']:.3f}" + (f", held-out {accuracy:.3f}" if accuracy is not None else "")
            )
            bar.update()

        train_frames, targets = lesson_part(split.train)
        held_frames, held_targets = lesson_part(split.held_out)
        lesson = Lesson(
            network,
            contract,
            train_frames,
            targets,
            held_frames,
            held_targets,
            epochs,
            device,
            options.seed,
            on_epoch,
        )
        STRATEGIES[options.strategy](lesson)
    network.cpu().eval()

    probabilities = predict(Deployed(network, contract), held_frames, contract)
    held_out = score(probabilities, held_targets.numpy(), labels)
    contract = replace(
        contract,
        trained_on={
            "backbone": options.backbone,
            "dataset": dataset,
            "held_out_accuracy": held_out["accuracy"],
            "held_out_frames": held_out["frames"],
            "optimistic": bool(split.cut_labels),
            "versions": {
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                "torchvision": str(torchvision.__version__),
            },
        },
    )
    metrics = {
        "labels": list(labels),
        "backbone": options.backbone,
        "strategy": options.strategy,
        "weights": source,
        "device": str(device),
        "seed": options.seed,
        "frames": len(split.train),
        "seconds": round(time.monotonic() - started, 2),
        "skipped": skipped,
        "held_out": held_out,
        "held_out_sessions": split.held_out_sessions,
        "cut_labels": list(split.cut_labels),
        "epochs": lesson.history,
    }
    held_out_paths, train_paths = (
        [f"{item.label}/{item.path.name}" for item in part] for part in (split.held_out, split.train)
    )
    data = str(options.data.resolve())
    save_checkpoint(out / "checkpoint.pt", Checkpoint(network, contract, data, held_out_paths, train_paths))
    write_atomic(out / "metrics.json", json.dumps(metrics, indent=1).encode())
    write_report(out / "report.html", metrics, _worst_mistakes(probabilities, split.held_out, frames, labels))
    _point_latest_at(out)
    for line in _claims(probabilities, held_targets.numpy(), split):
        print(line)
    print(f"{out / 'checkpoint.pt'}, {metrics['seconds']} s; the report: {out / 'report.html'}")
    return 0


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device cuda: torch finds no CUDA device here; give auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _load(items: list[Item]) -> tuple[list[Item], dict[Path, np.ndarray], list[str]]:
    """Decode every frame once, as small as `preprocess` allows; name and leave out what can't be read."""
    frames, skipped = {}, []
    for item in tqdm(items, desc="reading", unit="frame", leave=False, disable=None):
        try:
            frames[item.path] = shrink(read_image(item.path), INPUT_SIZE)
        except UnreadableImage as error:
            skipped.append(str(error))
            print(f"skipped: {error}", file=sys.stderr)
    return [item for item in items if item.path in frames], frames, skipped


def _say_split(items: list[Item], split: Split) -> None:
    if guess := guessed_sessions(items):
        print(guess, file=sys.stderr)
    sessions = len({item.session for item in split.train})
    print(
        f"training on {len(split.train)} frames of {sessions} sessions; held out: {len(split.held_out)} frames of "
        f"{len(split.held_out_sessions)} whole sessions",
        file=sys.stderr,
    )
    if split.cut_labels:
        print(
            f"too few sessions to hold one out of {', '.join(split.cut_labels)}: record more, in other places",
            file=sys.stderr,
        )


def _claims(probabilities: np.ndarray, targets: np.ndarray, split: Split) -> Iterator[str]:
    """Say how accurate it is, on whole sessions and on the ends of cut ones apart: the second is no promise."""
    right = probabilities.argmax(1) == targets
    whole = np.isin([item.session for item in split.held_out], split.held_out_sessions)
    if whole.any():
        count = len(split.held_out_sessions)
        sessions = f"{count} session{'s' * (count > 1)}"
        yield f"accuracy {right[whole].mean():.3f} on {whole.sum()} frames of {sessions} it was not trained on"
    if not whole.all():
        yield (
            f"accuracy {right[~whole].mean():.3f} on {(~whole).sum()} later frames of sessions it was trained on: "
            f"optimistic, it says little about another place ({', '.join(split.cut_labels)})"
        )
    if not len(right):
        yield "accuracy: not measured, there was nothing to hold out"


def _worst_mistakes(probabilities, items: list[Item], frames: dict, labels: tuple[str, ...], most: int = 12):
    """The held-out frames that were answered wrongly, the surest first."""
    answers = probabilities.argmax(1) if len(items) else []
    wrong = [
        {
            "frame": frames[item.path],
            "true": item.label,
            "answer": labels[answer],
            "confidence": float(row[answer]),
            "file": f"{item.label}/{item.path.name}",
        }
        for item, row, answer in zip(items, probabilities, answers, strict=True)
        if labels[answer] != item.label
    ]
    return sorted(wrong, key=lambda mistake: -mistake["confidence"])[:most]


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


if __name__ == "__main__":
    cli.run(main)
