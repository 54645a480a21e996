"""Which way a part of the model is computed on this device."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """How to compute a part of the model.

    Attributes:
        by_kernel: Whether by a kernel of metal-gen's own.
        refused: Why the kernel is not used; None if it is used, or does not exist for this model and device.
    """

    by_kernel: bool
    refused: str | None = None

    def __str__(self) -> str:
        if self.by_kernel:
            return "a kernel of its own"
        return "plain operations" + (f"; not a kernel of its own: {self.refused}" if self.refused else "")


BY_KERNEL = Choice(by_kernel=True)
PLAIN = Choice(by_kernel=False)
