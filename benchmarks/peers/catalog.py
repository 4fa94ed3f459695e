"""The programs that are compared, the peers: teachcam, and what people use in its place."""

from __future__ import annotations

from dataclasses import dataclass, field

SQUEEZENET, LITE0 = "SqueezeNet 1.1", "EfficientNet-Lite0"
OURS = "teachcam"  # the peer whose exported model the bare loops run, too

# What a reader must know of a dataset, by its name.
DATASETS = {
    "synthetic": "Drawn by teachcam's own synthetic camera. No setting was chosen on these rooms, but some on others "
    "that it draws.",
    "rps": "Webcam frames of rock, paper, scissors and none in 11 rooms, which are not part of the project. teachcam's "
    "settings were chosen on these rooms, those of the peers were not. This favors teachcam; by how much is not known.",
}

# A reason that several peers share.
CHECKS_THE_FILE = "The peer only loads the file. teachcam also reads the model's metadata, and runs the model once."


@dataclass(frozen=True)
class Peer:
    """A contender."""

    name: str  # as --peers takes it
    title: str  # as the tables show it
    script: str  # beside this file
    environment: str = ""  # a key of ENVIRONMENTS; empty: the project's own
    network: str = LITE0
    differs: str = ""  # from teachcam, in a few words
    options: dict = field(default_factory=dict)  # for the script
    trains: bool = True
    trains_on_gpu: bool = True  # if there is one
    # Why it is ahead of teachcam where it is: by criterion, a key of comparison.CRITERIA.
    reasons: dict[str, str] = field(default_factory=dict)
    # Why teachcam's being ahead says nothing: by criterion, too.
    handicaps: dict[str, str] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Whether it is teachcam."""
        return self.script == "ours.py"


# What is installed into build/peers/environments/NAME. Python's see the project's PyTorch, so all run the same one.
ENVIRONMENTS = {
    "yolo": ("ultralytics",),
    "fastai": ("fastai",),
    "sklearn": ("scikit-learn",),
    "node": (
        "@teachablemachine/image",
        "@tensorflow/tfjs@4",
        "@tensorflow/tfjs-backend-wasm@4",
        "@napi-rs/canvas",
    ),
}

PEERS = (
    Peer(
        OURS,
        "teachcam",
        "ours.py",
        differs="validation in other scenes, whole image, calibrated; knows which images are of one room, and pastes "
        "hands into other rooms; tries more than `ridge`, up to 240 s",
        options={"strategy": "auto", "backbone": "efficientnet_lite0"},
    ),
    Peer(
        "teachcam-ridge",
        "teachcam `--strategy ridge`",
        "ours.py",
        differs="as above, with the closed-form head alone",
        options={"strategy": "ridge", "backbone": "efficientnet_lite0"},
    ),
    Peer(
        "teachcam-teach",
        "teachcam, taught on the device",
        "ours.py",
        differs="as `ridge`, without augmented views and without PyTorch, on one core",
        options={"strategy": "teach"},
        trains_on_gpu=False,
    ),
    Peer(
        "teachcam-squeezenet",
        "teachcam, SqueezeNet",
        "ours.py",
        network=SQUEEZENET,
        differs="as the first row, from the weights that the tutorial and YOLO start from",
        options={"strategy": "auto", "backbone": "squeezenet1_1"},
    ),
    Peer(
        "tutorial",
        "NVIDIA's thumbs tutorial",
        "thumbs_tutorial.py",
        network=SQUEEZENET,
        differs="trains all layers; SGD, which its notebook has as a comment, in place of Adam, with which SqueezeNet "
        "was less accurate; 10 epochs, a number that the notebook leaves open; images as RGB, which its notebook reads "
        "as BGR; images stay in memory; its own accuracy is that on the images that it trained on",
        reasons={
            "backbone": "The peer trains all layers, teachcam the last half of them.",
            "training": "The peer trains one network, and can't tell its accuracy in new rooms. teachcam trains three, "
            "each without a third of the rooms, and evaluates each on those.",
        },
    ),
    Peer(
        "yolo",
        "`yolo classify`",
        "yolo_classify.py",
        "yolo",
        SQUEEZENET,
        differs="100 epochs; random split of images (80/20); center crop in validation and live; a larger head; its "
        "images are not normalized, though these weights expect it; uses one thread less than there are cores",
        reasons={
            "accuracy": "The peer trains all layers for 100 epochs with strong augmentation. "
            "With `--epochs 60 --budget 100000` teachcam had 1.000 in fold 1 of the drawn rooms (one training).",
            "backbone": "The peer trains all layers, teachcam the last half of them.",
        },
    ),
    Peer(
        "fastai",
        "fastai `fine_tune(4)`",
        "fastai_learner.py",
        "fastai",
        differs="random split of images (80/20); random crop, center crop in validation and live",
    ),
    Peer(
        "sklearn",
        "scikit-learn on frozen features",
        "frozen_features.py",
        "sklearn",
        differs="no augmentation; cross-validation over images in the order of their names, so nearly by room",
        trains_on_gpu=False,
        reasons={
            "training": "The peer fits one linear model to features that it computes once. teachcam's default also "
            "computes those of augmented views, and fine-tunes three networks.",
        },
    ),
    Peer(
        "teachable-machine",
        "Teachable Machine's library",
        "teachable_machine.mjs",
        "node",
        differs="random split of images (85/15); center crop; no augmentation; runs in Node on WebAssembly, on one "
        "thread, with a larger network than its own MobileNet",
        trains_on_gpu=False,
        reasons={
            "training": "The peer trains two layers on frozen features. teachcam also fine-tunes.",
            "start": CHECKS_THE_FILE,
        },
        handicaps=dict.fromkeys(
            ("training", "latency", "start"), "A browser runs the peer on the GPU; here it has one thread of the CPU."
        ),
    ),
    Peer(
        "onnxruntime",
        "bare ONNX Runtime",
        "bare_loops.py",
        differs="teachcam's own file; plain resize, no threshold, no check of the file",
        options={"engine": "onnxruntime"},
        trains=False,
        reasons={
            "latency": "The peer's resizing reads fewer pixels. The file is the same.",
            "start": CHECKS_THE_FILE,
        },
    ),
    Peer(
        "opencv",
        "OpenCV's dnn",
        "bare_loops.py",
        differs="the same file and loop",
        options={"engine": "opencv"},
        trains=False,
        reasons={"start": CHECKS_THE_FILE},
    ),
)
