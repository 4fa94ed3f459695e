"""Train a classifier on data/<label>/ by transfer learning.

    python train/finetune.py
    python train/finetune.py --backbone resnet18 --strategy full --epochs 10 --out runs/my_run

Leaves checkpoint.pt, metrics.json and report.html in the run's folder; runs/latest points to the newest run.
"""

from __future__ import annotations

from pathlib import Path

from collect import cli
from train.fit import OPTIMIZERS, SCHEDULES
from train.run import Options, show_augmentation, train
from train.strategies import BUDGET, LADDER, STRATEGIES


def main(argv: list[str] | None = None) -> int:
    """Train, measure on held-out sessions, and leave a run behind."""
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"), help="the dataset's folder")
    parser.add_argument("--out", type=Path, help="the run's folder (runs/<time>)")
    parser.add_argument(
        "--backbone", default="squeezenet1_1", help="squeezenet1_1, alexnet, resnet18 or any torchvision classifier"
    )
    parser.add_argument("--weights", default="imagenet", help="imagenet, none, or a state dict's file")
    parser.add_argument(
        "--strategy",
        choices=["auto", *STRATEGIES],
        default="auto",
        help=f"what is trained; auto tries {', '.join(LADDER)} while held-out sessions gain",
    )
    parser.add_argument(
        "--budget", type=float, default=BUDGET, metavar="SECONDS", help="what auto may take (%(default)g)"
    )
    parser.add_argument("--epochs", type=int, help="passes over the frames")
    parser.add_argument("--batch", type=int, help="frames a step")
    parser.add_argument("--optimizer", choices=list(OPTIMIZERS))
    parser.add_argument("--lr", type=float, help="the learning rate of the head, and of all in full and scratch")
    parser.add_argument("--backbone-lr", type=float, help="the learning rate of the backbone")
    parser.add_argument("--schedule", choices=SCHEDULES, help="step: a tenth after each third of the epochs")
    parser.add_argument(
        "--patience", type=int, metavar="EPOCHS", help="stop when the held-out loss stays as it is so long"
    )
    parser.add_argument(
        "--split",
        choices=("session", "frames"),
        default="session",
        help="hold out whole sessions, or frames at random, which promises too much",
    )
    parser.add_argument(
        "--folds", type=int, metavar="K", help="judge by cross-validation over the sessions: K trainings"
    )
    parser.add_argument(
        "--test", nargs="+", default=[], metavar="SESSION", help="sessions, or a fraction, kept for a last figure"
    )
    parser.add_argument(
        "--no-refit",
        dest="refit",
        action="store_false",
        help="do not learn what was held out after it was measured on",
    )
    parser.add_argument(
        "--show-augment", type=Path, metavar="FILE", help="write a picture of what training would see, and stop"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args(argv))
    for name in ("epochs", "batch", "patience"):
        if options[name] is not None and options[name] < 1:
            parser.error(f"--{name}: at least 1")
    for name in ("lr", "backbone_lr", "budget"):
        if options[name] is not None and not 0 < options[name] < float("inf"):
            parser.error(f"--{name.replace('_', '-')}: more than 0")
    if options["folds"] is not None and (options["folds"] < 2 or options["split"] == "frames"):
        parser.error("--folds: at least 2, over sessions")
    if not 0 <= options["seed"] < 2**32:
        parser.error("--seed: 0 to 4294967295")
    if options["strategy"] in ("full", "scratch") and options["backbone_lr"] is None:
        options["backbone_lr"] = options["lr"]
    if options["strategy"] == "scratch":
        options["weights"] = "none"
    names = ("epochs", "batch", "optimizer", "lr", "backbone_lr", "schedule", "patience")
    changes = {name: options.pop(name) for name in names}
    picture = options.pop("show_augment")
    options = Options(**options, changes={name: value for name, value in changes.items() if value is not None})
    if picture:
        show_augmentation(options, picture)
    else:
        train(options)
    return 0


if __name__ == "__main__":
    cli.run(main)
