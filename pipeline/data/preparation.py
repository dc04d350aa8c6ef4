"""How pictures of a data set become images: as the service does it."""

from pipeline.config.data_schema import Data
from serve.imaging.preparation import Preparation


def preparation(data: Data) -> Preparation:
    """Return how pictures of the data set become images, as the service does it."""
    return Preparation(data.preparation.value, *data.shape)
