"""Tiny methods for the tests of the runner: two that train, and one for each way to go wrong.

What a poison method does is told by the environment of the worker, so that a cell can be healed without a change of its
specification.
"""

import contextlib
import os
import resource
import signal
import time

import torch
from multirater.methods import Method, Prediction


class Toy(Method):
    """One convolution, noise in every step, and a pause that gives a killer time."""

    gives_samples = True

    def __init__(self, data, pause: float = 0.0, noise: float = 0.1):
        super().__init__(data, pause=pause, noise=noise)
        self.pause, self.noise = pause, noise
        self.layer = torch.nn.Conv2d(data.channels, 1, 3, padding=1)

    def training_step(self, batch, stage=None):
        time.sleep(self.pause)
        noisy = self.layer(batch["image"] + self.noise * torch.randn_like(batch["image"]))
        target = batch["masks"].float().mean(1, keepdim=True)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(noisy, target)
        return loss, {"noise": noisy.mean().detach()}

    def predict(self, images, n_samples=1, generator=None):
        logits = self.layer(images)
        noise = torch.randn(n_samples, 1, 1, generator=generator)
        samples = torch.sigmoid(logits + noise)
        return Prediction(samples=samples, mean=torch.sigmoid(logits[:, 0]))


class TwoStages(Toy):
    stages = ("first", "second")


class Poison(Toy):
    """Does in its fourth step what ``POISON`` says."""

    def __init__(self, data):
        super().__init__(data)
        self.step = 0

    def training_step(self, batch, stage=None):
        self.step += 1
        what = os.environ.get("POISON", "")
        if self.step == 4 and what:
            getattr(self, what)()
        loss, scalars = super().training_step(batch, stage)
        return (loss * float("nan") if what == "nan" else loss), scalars

    def raises(self):
        raise RuntimeError("this method is broken")

    def mended(self):
        """Raises, after somebody has mended it: the file is another one, the running code is not."""
        now = os.stat(__file__).st_mtime
        os.utime(__file__, (now, now + 1))
        self.raises()

    def kills(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def hangs(self):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        time.sleep(3600)

    def memory(self):
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        with open("/proc/self/statm") as stream:
            used = int(stream.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 50_000_000, hard))
        self.block = torch.zeros(2_000_000_000)

    def nan(self):
        pass

    def disk(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))

    def fills(self):
        """Writes to the file called ``FILL`` until no byte fits on its disk."""
        with open(os.environ["FILL"], "wb", buffering=0) as stream, contextlib.suppress(OSError):
            while stream.write(bytes(2**16)):
                pass


class PoisonEvaluation(Toy):
    """Trains, and dies when it predicts."""

    def predict(self, images, n_samples=1, generator=None):
        if os.environ.get("POISON") == "predict" and n_samples == 2:  # not in validation
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(images, n_samples, generator)
