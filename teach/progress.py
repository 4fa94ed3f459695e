"""How far teaching has come: the images that are learned, the accuracy, and what would help."""

from __future__ import annotations

from dataclasses import dataclass, field

MIN_EXAMPLES = 5  # of a label, before it is told apart


@dataclass(frozen=True)
class Progress:
    """The state of learning."""

    counts: dict[str, int] = field(default_factory=dict)  # images of each label that the newest head knows
    waiting: int = 0  # images whose features are still to be computed
    accuracy: float | None = None  # on scenes that the evaluated head never saw, 0 to 1; None before it is known
    num_evaluated: int = 0  # images that accuracy was measured on
    num_scenes: int = 0  # of all images
    labels_of_one_scene: tuple[str, ...] = ()  # their accuracy is optimistic
    unreadable: tuple[str, ...] = ()  # one message for each
    problem: str = ""  # with the dataset as a whole

    def describe(self) -> str:
        """Return how accurate the head is, and what would help, as text."""
        if sum(count >= MIN_EXAMPLES for count in self.counts.values()) < 2:
            return f"Record two labels, {MIN_EXAMPLES} images each: then it begins to answer."
        if self.waiting:
            return f"Learning: {self.waiting} images are waiting."
        if self.accuracy is None:
            return "Not measured yet. Record each label in another place, too."
        right = f"{100 * self.accuracy:.1f} % right"
        if self.accuracy <= max(self.counts.values()) / sum(self.counts.values()):  # as right as the commonest label
            right += ", no better than guessing,"
        if self.labels_of_one_scene:
            one = len(self.labels_of_one_scene) == 1
            return (
                f"{right} on {self.num_evaluated} images that it had not learned. "
                f"{', '.join(self.labels_of_one_scene)} {'was' if one else 'were'} recorded in one place only, so in a "
                f"new place it is right less often. Record {'it' if one else 'them'} in another place, too."
            )
        return (
            f"{right} in places that it had not seen ({self.num_evaluated} images in {self.num_scenes} places). More "
            "places make it better."
        )
