"""Compute the features of a dataset in shards, by WebDataset or by Ray Data, and measure both.

    python benchmarks/growth/shards.py pack       --data data --shards build/shards      # tar files of 500 images
    python benchmarks/growth/shards.py webdataset --shards build/shards --out build/features
    torchrun --nproc-per-node 2 benchmarks/growth/shards.py webdataset --shards build/shards --out build/features
    python benchmarks/growth/shards.py ray        --data data --out build/features-ray

`pip install webdataset` or `pip install "ray[data]"` first: neither is part of this project's requirements. WebDataset
gives each process its shards by RANK and WORLD_SIZE, which torchrun and most schedulers set.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import cv2
import numpy as np

from teachcam.collect.dataset import list_samples
from teachcam.images import decode_image
from teachcam.teach.backbone import Backbone

CACHE = Path("build/growth/backbone")
NUM_WORKERS = 2
IMAGES_PER_SHARD = 500  # 7 MB as the benchmark draws them; for real images some thousand are usual


def pack(options: argparse.Namespace) -> None:
    """Write the files of a dataset into tar files, each with its label."""
    import webdataset

    options.shards.mkdir(parents=True, exist_ok=True)
    with webdataset.ShardWriter(f"{options.shards}/%05d.tar", maxcount=IMAGES_PER_SHARD, verbose=0) as writer:
        for sample in list_samples(options.data):
            key = f"{sample.label}/{sample.path.stem}".replace(".", "-")
            writer.write({"__key__": key, "jpg": sample.path.read_bytes(), "txt": sample.label})


def by_webdataset(options: argparse.Namespace) -> None:
    """Write a file of features for each process, of the shards that WebDataset gives it."""
    import webdataset

    shards = sorted(map(str, options.shards.glob("*.tar")))
    images = webdataset.WebDataset(shards, shardshuffle=False, nodesplitter=webdataset.split_by_node)
    backbone = Backbone(CACHE)
    rows = [
        (key, label.decode(), backbone.features(decode_image(jpeg)))
        for key, jpeg, label in images.to_tuple("__key__", "jpg", "txt")
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    keys, labels, features = zip(*rows, strict=True)
    rank = int(os.environ.get("RANK", "0"))
    np.savez(options.out / f"{rank:05d}.npz", keys=keys, labels=labels, features=np.stack(features))


class Embed:
    """The features of a batch of images, for Ray Data, which keeps one of these in each worker."""

    def __init__(self):
        self.backbone = Backbone(CACHE.resolve())

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the paths of a batch, and the features of its images."""
        images = [cv2.cvtColor(image, cv2.COLOR_RGB2BGR) for image in batch["image"]]
        return {"path": batch["path"], "features": np.stack([self.backbone.features(image) for image in images])}


def by_ray(options: argparse.Namespace) -> None:
    """Write Parquet files of features. Ray Data divides the images among its workers, on all machines of a cluster."""
    import ray

    ray.init(include_dashboard=False, log_to_driver=False)
    images = ray.data.read_images(str(options.data.resolve()), include_paths=True)
    features = images.map_batches(Embed, concurrency=NUM_WORKERS, num_cpus=0.5, batch_size=32)  # leaves a core to read
    features.write_parquet(str(options.out.resolve()))


def main() -> None:
    """Do one of the three, and print how long it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("pack", "webdataset", "ray"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--shards", type=Path, default=Path("build/shards"))
    parser.add_argument("--out", type=Path, default=Path("build/features"))
    options = parser.parse_args()
    started = time.monotonic()
    {"pack": pack, "webdataset": by_webdataset, "ray": by_ray}[options.what](options)
    print(f"{options.what}: {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
