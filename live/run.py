"""Answer live: camera in, label out.

    python live/run.py --camera 0
    python live/run.py --camera clip.mp4 --headless --json

Takes the newest run unless --model names an ONNX file; a checkpoint is exported first. Needs no torch but for that.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from collect import cli
from collect.camera import Camera
from live.classifier import PROVIDERS, Classifier, ModelError
from live.latency import Latency
from live.sinks import Changes, JsonLines, Result, Screen, Video


def main(argv: list[str] | None = None) -> int:
    """Answer every frame until the source, `--frames` or the user ends it."""
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--camera", default="0", help="0, http://..., rtsp://..., a file, a folder, synthetic")
    parser.add_argument("--model", type=Path, help="an ONNX file or a checkpoint (the newest run's)")
    parser.add_argument("--headless", action="store_true", help="no window")
    parser.add_argument("--json", action="store_true", help="a JSON object a frame on stdout")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write an annotated video, .mp4")
    parser.add_argument("--frames", type=int, help="stop after this many frames")
    parser.add_argument("--provider", choices=list(PROVIDERS), help="insist on an execution provider")
    options = parser.parse_args(argv)
    if options.frames is not None and options.frames < 1:
        parser.error("--frames: at least 1")

    classifier = Classifier(find_model(options.model), options.provider)
    print(f"{classifier.path}: {', '.join(classifier.contract.labels)}; {classifier.provider}", file=sys.stderr)
    with Camera(options.camera) as camera:
        sinks = [JsonLines() if options.json else Changes()]
        if options.record:
            sinks.append(Video(options.record, camera.fps or 30.0))
        if not options.headless:
            sinks.append(Screen())
        loop(camera, classifier, sinks, options.frames)
    return 0


def loop(camera: Camera, classifier: Classifier, sinks: list, most: int | None = None) -> int:
    """Answer frames until the camera or a sink ends it, or `most` are answered; return how many were."""
    latency, age, answered = Latency(), Latency(), 0
    period = None  # seconds from answer to answer, smoothed
    last = None
    try:
        for frame in camera:
            started = time.monotonic()
            answer = classifier.classify(frame.image)
            now = time.monotonic()
            latency.add(now - started)
            age.add(now - frame.captured)
            if last is not None:
                period = now - last if period is None else 0.9 * period + 0.1 * (now - last)
            last = now
            answered += 1
            fps = 1 / period if period else 0.0
            result = Result(frame, answer, now - started, now - frame.captured, fps)
            if not all([sink(result) for sink in sinks]) or answered == most:
                break
    finally:
        for sink in sinks:
            sink.close()
        _say_how_it_went(answered, camera.dropped, latency, age, classifier.provider)
    return answered


def _say_how_it_went(frames: int, dropped: int, latency: Latency, age: Latency, provider: str) -> None:
    if not frames:
        print("no frame was answered", file=sys.stderr)
        return
    print(
        f"{frames} frames, {dropped} dropped, on {provider}; "
        f"latency p50 {latency.percentile(50):.1f} ms, p99 {latency.percentile(99):.1f} ms; "
        f"frame age p50 {age.percentile(50):.1f} ms, p99 {age.percentile(99):.1f} ms",
        file=sys.stderr,
    )


def find_model(model: Path | None) -> Path:
    """Return the ONNX file to run: `model`, or the newest run's; a checkpoint is exported first.

    An ONNX file older than the checkpoint beside it is exported again, for the device and the precision that it had.
    """
    if model is None:
        checkpoint = Path("runs/latest/checkpoint.pt")
        model = checkpoint.with_name("model.onnx")
        if not checkpoint.exists() and not model.exists():
            raise ModelError("no run here yet: train one with python train/finetune.py, or give --model FILE")
        if checkpoint.exists() and not (model.exists() and model.stat().st_mtime >= checkpoint.stat().st_mtime):
            model = checkpoint
    if model.suffix != ".pt":
        return model
    print(f"exporting {model}", file=sys.stderr)
    try:
        from export.to_onnx import export, request_of
    except ImportError as error:
        raise ModelError(
            f"{model} has to be exported first, and {error.name} is not installed here: run "
            "python export/to_onnx.py where it was trained, and bring model.onnx"
        ) from None
    exported = model.with_name("model.onnx")
    export(model, exported, request=request_of(exported))
    return exported


if __name__ == "__main__":
    cli.run(main)
