"""All exceptions of teachcam. Each is raised with one line that says what is wrong and what to do about it.

UserError                an error that the user can fix; commands print its text and exit with code 2
├── CameraError          there is no such camera, or it stopped sending images
│   └── CameraTimeout    no image arrived in time
├── DatasetError         no images, a label that can't name a folder, a full disk
├── ContractError        a model without a contract, or with one of another version
├── TrainingError        too few labels, pretrained weights that can't be downloaded
├── CheckpointError      a file that is not a complete checkpoint
├── ExportError          an exported model whose predictions differ from the trained network's
└── ModelError           a model that can't be loaded or run
UnreadableImage          a file that is not a complete image; code that reads many files skips and counts these
"""

from __future__ import annotations


class UserError(Exception):
    """An error that the user can fix. Its text is the one line that the user sees."""


class CameraError(UserError):
    """The camera does not exist, does not open, or stopped sending images."""


class CameraTimeout(CameraError):
    """No new image arrived within the given time."""


class DatasetError(UserError):
    """The dataset can't be read or written."""


class ContractError(UserError):
    """The model's contract is missing, broken, or of a version that this code does not know."""


class TrainingError(UserError):
    """Training can't start: for example without pretrained weights, or with a single label."""


class CheckpointError(UserError):
    """The file is not a checkpoint of teachcam, or is incomplete."""


class ExportError(UserError):
    """The model can't be exported, or the exported file does not predict what the trained network predicts.

    Attributes:
        reason: Its text without the advice, for a page, which has no options.
    """

    def __init__(self, reason: str, advice: str = ""):
        """Create it.

        Args:
            reason: What is wrong; and what to do about it, unless that is for commands only.
            advice: What to do about it with the options of a command.
        """
        super().__init__(f"{reason}: {advice}" if advice else reason)
        self.reason = reason


class ModelError(UserError):
    """The model can't be loaded or run."""


class UnreadableImage(Exception):
    """The file is not a complete image. The text names the file and the reason."""
