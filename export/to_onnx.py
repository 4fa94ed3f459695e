"""Export a checkpoint to ONNX, and prove the file before it is there.

    python export/to_onnx.py
    python export/to_onnx.py --checkpoint runs/my_run/checkpoint.pt --out model.onnx

The graph takes frames as `train.contract.preprocess` gives them (uint8 [1, H, W, 3]) and returns probabilities;
normalisation, temperature and softmax are inside it, the contract is in its metadata.
"""

from __future__ import annotations

import contextlib
import secrets
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch

from collect import cli
from collect.dataset import UnreadableImage, read_image
from collect.resize import shrink
from export.parity import ExportError, Parity, measure_parity
from train.backbones import Deployed, Network
from train.checkpoint import Checkpoint, load_checkpoint
from train.contract import METADATA_KEY, Contract

OPSET = 17  # the newest that JetPack 5's TensorRT reads
PARITY_FRAMES = 200


def main(argv: list[str] | None = None) -> int:
    """Export, check, and print what was proved."""
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=Path("runs/latest/checkpoint.pt"))
    parser.add_argument("--out", type=Path, help="the ONNX file (model.onnx beside the checkpoint)")
    parser.add_argument("--data", type=Path, help="where the frames are, if no longer where they were trained on")
    options = parser.parse_args(argv)
    out = options.out or options.checkpoint.parent / "model.onnx"
    parity = export(options.checkpoint, out, options.data)
    print(
        f"{out}: the same label as PyTorch on all of {parity.frames} real frames, "
        f"largest difference of a probability {parity.largest_difference:.1e}"
    )
    return 0


def export(checkpoint_file: Path, out: Path, data: Path | None = None) -> Parity:
    """Write `out` from a checkpoint, if it passes; raises ExportError and leaves no file if not.

    Parity is measured on the held-out frames, then on trained ones up to `PARITY_FRAMES`, below `data` or where
    the checkpoint says they were.
    """
    checkpoint = load_checkpoint(checkpoint_file)
    frames = _frames(checkpoint, data)
    beside = out.with_name(f".{out.name}.{secrets.token_hex(3)}.tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_onnx(beside, checkpoint.network, checkpoint.contract)
        parity = measure_parity(beside, Deployed(checkpoint.network, checkpoint.contract), frames, checkpoint.contract)
        parity.require()
        beside.replace(out)
    except OSError as error:
        raise ExportError(f"can't write {out}: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()
    return parity


def _frames(checkpoint: Checkpoint, data: Path | None) -> list[np.ndarray]:
    """Read real frames of the dataset, as small as `preprocess` allows."""
    folder = data or Path(checkpoint.data)
    frames = []
    for name in (checkpoint.held_out + checkpoint.trained_on)[:PARITY_FRAMES]:
        try:
            frames.append(shrink(read_image(folder / name), checkpoint.contract.input_size))
        except UnreadableImage:
            continue  # moved or deleted since; the others prove as much
    if not frames:
        raise ExportError(
            f"none of the frames it was trained on are in {folder}, so nothing can be proved: "
            "say where they are with python export/to_onnx.py --data DIR"
        )
    return frames


def write_onnx(path: Path, network: Network, contract: Contract) -> None:
    """Write a network and its contract as ONNX, unproved: `export` is what proves it."""
    height, width = contract.input_size
    with warnings.catch_warnings():
        # The newer exporter writes no opset below 18; this one serves every JetPack.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            Deployed(network, contract),
            (torch.zeros(1, height, width, 3, dtype=torch.uint8),),
            str(path),
            input_names=["frames"],
            output_names=["probabilities"],
            opset_version=OPSET,
            dynamo=False,
        )
    graph = onnx.load(str(path))
    onnx.helper.set_model_props(graph, {METADATA_KEY: contract.to_json()})
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, str(path))


if __name__ == "__main__":
    cli.run(main)
