"""The images: `fetch` brings a data set to this machine, `load` opens it, `split` draws training and validation images.

`catalogue` lists the data sets, `images` holds their arrays, `files` reads them from the data folder, and `fetching`
brings them there.
"""

from mnist_ablate.data.catalogue import CLASS_NAMES, CLASSES, DATASETS, PIXELS, IdxFile
from mnist_ablate.data.fetching import Fetched, fetch
from mnist_ablate.data.files import data_folder, load
from mnist_ablate.data.images import Images, replace_labels, split, training_size

__all__ = [
    "CLASSES", "CLASS_NAMES", "DATASETS", "PIXELS", "Fetched", "IdxFile", "Images", "data_folder", "fetch", "load",
    "replace_labels", "split", "training_size",
]  # fmt: skip
