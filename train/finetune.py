"""Train a classifier on data/<label>/ by transfer learning.

    python train/finetune.py
    python train/finetune.py --backbone resnet18 --strategy full --epochs 10 --out runs/my_run
    python train/finetune.py @train/recipes/malaria.args --data cells
    python train/finetune.py --resume

Leaves checkpoint.pt, metrics.json and report.html in the run's folder; runs/latest points to the newest run.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from teachcam import cli
from teachcam.train.augment.cpu import KINDS
from teachcam.train.config import AUTO_STRATEGIES, BUDGET, SCHEDULES, STRATEGIES, RunConfig
from teachcam.train.engine.optimizer import OPTIMIZERS
from teachcam.train.model.backbones import HEADS, SMALL_CNN
from teachcam.train.run import show_augmentation, train, unfinished

SETTINGS = (  # what may be changed of a strategy's own
    "epochs", "batch", "optimizer", "lr", "backbone_lr", "weight_decay", "schedule", "patience", "dropout",
    "trainable_fraction", "sizes",
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Train, measure on held-out sessions, and leave a run behind."""
    parser = _parser()
    try:
        options = vars(parser.parse_args(argv))
    except UnicodeDecodeError:
        parser.error("@FILE: that is not a text file")
    resume = options.pop("resume")
    if resume is not None:
        given = [name for name, value in options.items() if value != parser.get_default(name)]
        if given:
            name = {"refit": "no-refit"}.get(given[0], given[0].replace("_", "-"))
            parser.error(f"--resume: the run goes on as it was begun, so leave --{name} out")
        train(unfinished(Path(resume) if resume else None), resumed=True)
        return 0
    picture = options.pop("show_augment")
    _check(parser, options)
    changes = {name: options.pop(name) for name in SETTINGS}
    options = RunConfig(**options, changes={name: value for name, value in changes.items() if value is not None})
    if picture:
        show_augmentation(options, picture)
    else:
        train(options)
    return 0


class _Parser(cli.Parser):
    """Takes arguments from files too, as a shell would read them, with comments."""

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        """Split a line of an arguments' file."""
        try:
            return shlex.split(arg_line, comments=True)
        except ValueError as error:
            self.error(f"{arg_line.strip()[:60]!r}: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        description=__doc__.splitlines()[0],
        epilog="@FILE reads arguments from a file; train/recipes has those of the tutorials",
        fromfile_prefix_chars="@",
    )
    add = parser.add_argument_group("data").add_argument
    add("--data", type=Path, default=Path("data"), help="the dataset's folder")
    add("--labels", nargs="+", default=[], metavar="LABEL", help="these only")
    add("--train-list", type=Path, metavar="FILE", help="learn from these files only: lines of `path class_id`")
    add("--test-list", type=Path, metavar="FILE", help="with --train-list: a last figure is taken on these")
    add("--split", choices=("session", "frames"), default="session",
        help="hold out whole sessions, or frames at random, which promises too much")  # fmt: skip
    add("--validation", type=float, default=0.2, metavar="FRACTION", help="of the frames (%(default)g)")
    add("--folds", type=int, metavar="K", help="judge by cross-validation over the sessions: K trainings")
    add("--test", nargs="+", default=[], metavar="SESSION", help="sessions, or a fraction, kept for a last figure")
    add("--no-refit", dest="refit", action="store_false",
        help="do not learn what was held out after it was measured on")  # fmt: skip
    add("--size", type=int, metavar="PIXELS", help="of the model's input (224)")
    add("--grayscale", action="store_true", help="show the model no colors, in training and live")
    add("--augment", choices=KINDS, default="room", help="what training changes in a frame (%(default)s)")
    add("--show-augment", type=Path, metavar="FILE", help="write a picture of what training would see, and stop")

    add = parser.add_argument_group("network").add_argument
    add("--backbone", default="squeezenet1_1",
        help=f"squeezenet1_1, alexnet, resnet18, any torchvision classifier, or {SMALL_CNN}")  # fmt: skip
    add("--weights", default="imagenet", help="imagenet, none, or a state dict's file")
    add("--head", choices=HEADS, default="linear", help="mlp: linear, ReLU, dropout, linear")
    add("--dropout", type=float, help="of the features before a linear head, within an mlp one")

    add = parser.add_argument_group("training").add_argument
    add("--strategy", choices=["auto", *STRATEGIES], default="auto",
        help=f"what is trained; auto tries {', '.join(AUTO_STRATEGIES)} while held-out sessions gain")  # fmt: skip
    add("--budget", type=float, default=BUDGET, metavar="SECONDS", help="what auto may take (%(default)g)")
    add(
        "--unfreeze",
        dest="trainable_fraction",
        type=float,
        metavar="SHARE",
        help="of the backbone's layers, the last ones: they learn too",
    )
    add("--epochs", type=int, help="passes over the frames")
    add("--batch", type=int, help="frames a step")
    add("--optimizer", choices=list(OPTIMIZERS))
    add("--lr", type=float, help="the learning rate of the head, and of all in full and scratch")
    add("--backbone-lr", type=float, help="the learning rate of the backbone")
    add("--weight-decay", type=float)
    add("--schedule", choices=SCHEDULES, help="step: a tenth after each third of the epochs")
    add("--patience", type=int, metavar="EPOCHS", help="stop when the held-out loss stays as it is so long")
    add("--sizes", type=float, nargs="+", metavar="SHARE", help="of the input's size, as the epochs go by")

    add = parser.add_argument_group("run").add_argument
    add("--out", type=Path, help="the run's folder (runs/<time>)")
    add("--resume", nargs="?", const="", metavar="RUN",
        help="go on with an interrupted run, the newest unless named")  # fmt: skip
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--seed", type=int, default=0)
    return parser


def _check(parser: argparse.ArgumentParser, options: dict) -> None:
    """Refuse values that mean nothing, and settle those that follow from others."""
    for name in ("epochs", "batch", "patience"):
        if options[name] is not None and not 1 <= options[name] <= 100_000:
            parser.error(f"--{name}: 1 to 100000")
    for name in ("lr", "backbone_lr", "budget"):
        if options[name] is not None and not 0 < options[name] < float("inf"):
            parser.error(f"--{name.replace('_', '-')}: more than 0")
    for name, least, most in (
        ("dropout", 0, 0.95),
        ("weight_decay", 0, 10),
        ("trainable_fraction", 0, 1),
        ("validation", 0.01, 0.9),
    ):
        if options[name] is not None and not least <= options[name] <= most:
            parser.error(f"--{name.replace('_', '-')}: {least:g} to {most:g}")
    if options["sizes"] and not all(0.1 <= size <= 1 for size in options["sizes"]):
        parser.error("--sizes: 0.1 to 1")
    if options["size"] is not None and not 16 <= options["size"] <= 1024:
        parser.error("--size: 16 to 1024")
    if options["folds"] is not None and (options["folds"] < 2 or options["split"] == "frames"):
        parser.error("--folds: at least 2, over sessions")
    if options["test_list"] and not options["train_list"]:
        parser.error("--test-list: give --train-list too")
    if options["test_list"] and options["test"]:
        parser.error("--test-list: the list is the test, leave --test out")
    if not 0 <= options["seed"] < 2**32:
        parser.error("--seed: 0 to 4294967295")
    if options["strategy"] in ("full", "scratch") and options["backbone_lr"] is None:
        options["backbone_lr"] = options["lr"]
    if options["strategy"] == "scratch":
        options["weights"] = "none"
    if options["train_list"] and options["labels"]:
        parser.error("--labels: not with --train-list, which has its own")
    for name in ("labels", "test"):
        options[name] = tuple(options[name])
    if options["sizes"]:
        options["sizes"] = tuple(options["sizes"])


if __name__ == "__main__":
    cli.run(main)
