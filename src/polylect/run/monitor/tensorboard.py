"""TensorBoard, in one file of events for a run."""

from lightning.pytorch.loggers import TensorBoardLogger as LightningTensorBoardLogger


class TensorBoardLogger(LightningTensorBoardLogger):
    """Lightning's logger, without closing its file at the end of a fit.

    What is logged after that, as test scores are, would begin a second file, which tensorboardX
    names by the second alone: in a short run it takes the place of the first.
    """

    def finalize(self, status: str) -> None:
        """Write what is waiting; further values go into the same file."""
        if self._experiment is not None:
            self.experiment.flush()
        if status == "success":
            self.save()
